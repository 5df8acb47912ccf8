//go:build integration

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/explain"
)

// Two devices turn out to be one person, by events over HTTP: the command and the API tell why, with the events, within
// seconds, and ClickHouse knows who they were before.
func TestWhyTwoIdentifiersAreOnePerson(t *testing.T) {
	d := deploy(t, options{})
	phone, laptop, user := uuid.NewString(), uuid.NewString(), "u-"+d.id
	mail := "Ann." + d.id + "@Example.com"
	d.send(event{"type": "page", "name": "Home", "anonymousId": phone})
	d.send(event{"type": "identify", "messageId": "login-" + d.id, "anonymousId": phone, "userId": user, "traits": event{"email": mail}})
	bought := fmt.Sprintf(`{"event":"Order Completed","messageId":"order-%s","anonymousId":%q,"userId":%q,"properties":{"order_id":"o1","total":5}}`, d.id, laptop, user)
	a := d.post(keyBackend, "/v1/track", bought)
	require.Equal(t, http.StatusOK, a.status, a.body)

	ask := func(path string, into any) int {
		a := d.do(http.MethodGet, d.api+"/v1/identity/"+path, nil, "Authorization", "Bearer "+keyAdmin)
		if a.status == http.StatusOK {
			require.NoError(t, json.Unmarshal([]byte(a.body), into), a.body)
		}
		return a.status
	}
	// The address as it was typed, escaped; both ways round.
	path := "why/anonymous_id/" + laptop + "/email/" + url.PathEscape(mail)
	var why explain.Chain
	eventually(t, readyLimit, "the links are in ClickHouse, with their events", func() error {
		why = explain.Chain{}
		status := ask(path, &why)
		for _, l := range why.Links {
			if l.Event.Stored == "" {
				return fmt.Errorf("event %s is not there", l.Event.MessageID)
			}
		}
		if status != http.StatusOK || len(why.Links) == 0 {
			return fmt.Errorf("%d: %+v", status, why)
		}
		return nil
	})
	require.Len(t, why.Links, 2)
	order, login := why.Links[0], why.Links[1]
	require.Equal(t, []string{"anonymous_id:" + laptop, "user_id:" + user}, []string{order.From.String(), order.To.String()})
	require.Equal(t, []string{"shop-backend", "track", "Order Completed", "order-" + d.id, "same_event"},
		[]string{order.Event.Source, order.Event.Type, order.Event.Name, order.Event.MessageID, order.Rule})
	require.Equal(t, "email:"+strings.ToLower(mail), login.To.String())
	require.Equal(t, []string{"shop-web", "identify", "login-" + d.id}, []string{login.Event.Source, login.Event.Type, login.Event.MessageID})

	var printed explain.Chain
	require.NoError(t, json.Unmarshal([]byte(d.run("identity", "why", "anonymous_id:"+laptop, "email:"+mail, "--json")), &printed))
	require.Equal(t, why, printed, "the command and the API say the same")
	require.Contains(t, d.run("identity", "why", "email:"+mail, "anonymous_id:"+laptop), `same_event: track "Order Completed" of shop-backend`)

	var person explain.Person
	eventually(t, readyLimit, "the whole person is in ClickHouse", func() error { // partitions are written one by one
		person = explain.Person{}
		status := ask("show/anonymous_id/"+phone, &person)
		if len(person.Identifiers) != 4 || person.Events != 3 || person.Pending != "" {
			return fmt.Errorf("%d: %+v", status, person)
		}
		return nil
	})
	require.Contains(t, d.run("identity", "show", "profile:"+person.ID), "4 identifiers, 3 merges, 3 events")
	var past explain.Past
	require.Equal(t, http.StatusOK, ask("history/user_id/"+user, &past))
	require.Len(t, past.Merges, 3)
	require.Equal(t, http.StatusNotFound, ask("show/email/nobody@example.com", nil))

	// Before it logged in the telephone was a person of its own.
	before := d.rows(`SELECT if(person_id = node, 'itself', toString(person_id)) FROM person_of(type = 'anonymous_id', value = %s, at = %s, known = '')`,
		quote(phone), quote(login.Time.Add(-1e6).Format("2006-01-02 15:04:05.000")))
	require.Equal(t, [][]string{{"itself"}}, before)
	now := d.rows(`SELECT toString(person_id) FROM person_of(type = 'anonymous_id', value = %s, at = '2200-01-01', known = '')`, quote(phone))
	require.Equal(t, [][]string{{person.ID}}, now)
}
