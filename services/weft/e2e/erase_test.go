//go:build integration

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tablesWithPeople are searched for what is readable of a person, all columns as one text each.
var tablesWithPeople = []string{
	"events", "events_rejected", "identities", "profiles", "audience_changes", "messages_requested", "receipts", "identity_suspensions", "identity_commands",
}

// readable says where ClickHouse holds one of the texts, unless it is the end of another: other-ann@ is not ann@.
func (d *deployment) readable(texts ...string) []string {
	d.t.Helper()
	var found []string
	for _, table := range tablesWithPeople {
		for _, text := range texts {
			if n := d.number("SELECT count() FROM "+table+" WHERE match(lower(toString(tuple(*))), lower(%s))", quote("(^|[^-])"+text)); n > 0 {
				found = append(found, fmt.Sprintf("%s: %d rows with %s", table, n, text))
			}
		}
	}
	return found
}

// TestErasureThroughTheCommandLine: nothing readable is left of somebody who is erased, what comes later is left out, another
// person is as before, and who is let in again is somebody new.
func TestErasureThroughTheCommandLine(t *testing.T) {
	d := deploy(t, options{})
	ann, bob := newCouple("ann", d.id), newCouple("bob", d.id)
	at := time.Now().Add(-time.Minute)
	d.live(ann, at)
	d.live(bob, at)
	a := d.post(keyBackend, "/v1/track", fmt.Sprintf(`{"userId":%q,"properties":{"without":"an event"}}`, ann.user))
	require.Equal(t, http.StatusOK, a.status, a.body)
	d.stored(10)
	eventually(t, settleLimit, "the rejected event is in ClickHouse", func() error {
		return want("rejected", 1, d.number("SELECT count() FROM events_rejected"))
	})
	is := d.profileID("user_id", ann.user, anyProfile)
	other, err := d.facts("user_id", bob.user)
	require.NoError(t, err)
	mine := []string{ann.user, ann.email, ann.laptop, is}
	require.NotEmpty(t, d.readable(mine...))

	preview := d.run("identity", "erase", "user_id:"+ann.user, "--dry-run")
	require.Contains(t, preview, "events: 2 rows")
	require.Contains(t, preview, "events_rejected: 1 rows")
	for range 2 { // again is no harm
		said := d.run("identity", "erase", "email:"+strings.ToUpper(ann.email), "--reason", "ticket 7", "--yes")
		require.Contains(t, said, "erase done", said)
	}
	require.Empty(t, d.readable(ann.user, ann.email, ann.laptop))
	check := d.run("identity", "erased", "user_id:"+ann.user, "email:"+ann.email, "anonymous_id:"+ann.laptop)
	require.Equal(t, 3, strings.Count(check, "nothing is left"), check)
	_, err = d.profile("user_id", ann.user)
	require.Error(t, err)

	still, err := d.facts("user_id", bob.user)
	require.NoError(t, err)
	require.Equal(t, other, still)
	page := fmt.Sprintf(`{"type":"page","name":"Again","userId":%q}`, ann.user)
	require.Equal(t, http.StatusOK, d.post(keyBackend, "/v1/page", page).status)
	require.Contains(t, d.run("identity", "unsuppress", "user_id:"+ann.user, "--reason", "registered again"), "unsuppress done")
	require.Equal(t, http.StatusOK, d.post(keyBackend, "/v1/page", page).status)
	now := d.profileID("user_id", ann.user, func(p map[string]any) error {
		counts, _ := p["counts"].(map[string]any)
		return want("events", "1", fmt.Sprint(counts["events"]))
	})
	require.NotEqual(t, is, now)
	d.healthy()
}
