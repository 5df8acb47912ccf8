//go:build integration

package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// captured is one line of the collector's testdata: a request as a real SDK sent it.
type captured struct {
	Method, Path string
	Headers      map[string]string
	Gzip         bool // the body was packed
	Body         json.RawMessage
}

// send sends it, with a Content-Length of our own.
func (c captured) send(d *deployment) {
	d.t.Helper()
	var body bytes.Buffer
	if c.Gzip {
		z := gzip.NewWriter(&body)
		_, err := z.Write(c.Body)
		require.NoError(d.t, err)
		require.NoError(d.t, z.Close())
	} else {
		body.Write(c.Body)
	}
	var headers []string
	for k, v := range c.Headers {
		switch http.CanonicalHeaderKey(k) {
		case "Content-Length", "Transfer-Encoding", "Connection", "Accept-Encoding": // the client's own
		default:
			headers = append(headers, k, v)
		}
	}
	a := d.do(c.Method, d.door+c.Path, &body, headers...)
	require.Equal(d.t, http.StatusOK, a.status, a.body)
	require.NotContains(d.t, a.body, `"rejected"`)
}

// events are the items of the body.
func (c captured) events(t *testing.T) []sent {
	t.Helper()
	if len(c.Body) == 0 {
		return nil
	}
	var body struct {
		sent
		Batch []sent
	}
	require.NoError(t, json.Unmarshal(c.Body, &body))
	if body.Batch == nil {
		return []sent{body.sent}
	}
	for i := range body.Batch {
		if e := &body.Batch[i]; e.Context.Library.Name == "" {
			e.Context.Library = body.Context.Library // what the batch says of all its items
		}
	}
	return body.Batch
}

// sent is one event in it.
type sent struct {
	Type, Event, Name, UserID, AnonymousID, PreviousID, GroupID, MessageID string
	Timestamp, OriginalTimestamp                                           time.Time
	Properties, Traits                                                     json.RawMessage
	Context                                                                struct {
		Story   struct{ Step string }
		Library struct{ Name, Version string }
		Traits  json.RawMessage
	}
}

func traffic(t *testing.T, sdk string) []captured {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "services/collector/testdata", sdk+".jsonl"))
	require.NoError(t, err)
	var all []captured
	for _, line := range bytes.Split(bytes.TrimSpace(text), []byte("\n")) {
		var c captured
		require.NoError(t, json.Unmarshal(line, &c))
		all = append(all, c)
	}
	return all
}

// stepsOfStory is how many calls each SDK made.
const stepsOfStory = 24

// sdks are those whose traffic is kept, and what is their own in it.
var sdks = []struct {
	name   string
	points string // 9007199254740993 as it could hold it
	null   string // what it makes of a null in properties and traits
	app    bool   // which has no pages, only screens
}{
	{"analytics-node", "9007199254740992", "null", false},
	{"segment-analytics-python", "9007199254740993", "null", false},
	{"analytics-go", "9007199254740993", "null", false},
	{"analytics-java", "9007199254740993", "", false},
	{"analytics-next", "9007199254740992", "null", false},
	{"analytics-next-batching", "9007199254740992", "null", false},
	{"analytics-kotlin", "9007199254740993", "null", true},
	{"rudder-sdk-node", "9007199254740992", "null", false},
	{"rudder-sdk-python", "9007199254740993", "null", false},
}

// TestTraffic: what real SDKs sent, with their defaults, arrives in ClickHouse event by event and byte for byte, and
// the anonymous visitor, the lead, the user and the second device are one person.
func TestTraffic(t *testing.T) {
	// The story has a lead that is renamed to a user by an alias call: two user ids, where the shipped limit is one.
	shipped, err := os.ReadFile(filepath.Join(root, "schemas/identity/rules.yaml"))
	require.NoError(t, err)
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	require.NoError(t, os.WriteFile(rules, []byte(edit(t, string(shipped), "limit: {values: 1, per: ever}", "limit: {values: 2, per: ever}")), 0o600))
	d := deploy(t, options{environ: []string{"WEFT_IDENTITY_RULES_FILE=" + rules}})
	facts := [][]string{}
	for _, sdk := range sdks {
		events := map[string]sent{}
		for _, req := range traffic(t, sdk.name) {
			req.send(d)
			for _, e := range req.events(t) {
				events[e.MessageID] = e
			}
		}
		require.Len(t, events, stepsOfStory)
		facts = append(facts, d.checkArrival(sdk.name, events)...)
		facts = append(facts, d.checkStory(sdk.name, sdk.points, sdk.null, sdk.app)...)
	}
	t.Logf("traffic of real SDKs, in ClickHouse:\n%s", table([]string{"SDK", "fact", "expected", "found"}, facts))
	d.run("audit", "--wait", "3m")
	require.Empty(t, d.mail.all())
	d.healthy()
}

// checkArrival compares every event with its row.
func (d *deployment) checkArrival(sdk string, events map[string]sent) [][]string {
	d.t.Helper()
	ours := "JSONExtractString(context, 'story', 'sdk') = " + quote(sdk)
	eventually(d.t, time.Minute, "the events of "+sdk+" are in ClickHouse", func() error {
		return want("rows", stepsOfStory, d.number("SELECT count() FROM events WHERE %s", ours))
	})
	rows := d.rows(`SELECT message_id, type, name, user_id, anonymous_id, previous_id, group_id, toUnixTimestamp64Milli(time),
		properties, traits, library, time_clamped, source, faults::String FROM events WHERE %s`, ours)
	same := 0
	for _, r := range rows {
		e, ok := events[r[0]]
		require.True(d.t, ok, "message id %s", r[0])
		step := e.Context.Story.Step
		if e.Timestamp.IsZero() {
			e.Timestamp = e.OriginalTimestamp
		}
		if e.Type == "identify" && len(e.Traits) == 0 { // where RudderStack's SDKs have them
			e.Traits = e.Context.Traits
		}
		wanted := []string{
			e.MessageID, e.Type, e.Event + e.Name, e.UserID, e.AnonymousID, e.PreviousID, e.GroupID,
			strconv.FormatInt(e.Timestamp.UnixMilli(), 10), string(e.Properties), string(e.Traits),
			e.Context.Library.Name + "/" + e.Context.Library.Version, "false", "shop-web", "[]",
		}
		require.Equal(d.t, wanted, r, step)
		same++
	}
	return [][]string{{sdk, "events, every field and byte of properties and traits equal", strconv.Itoa(len(events)), strconv.Itoa(same)}}
}

// checkStory looks at what the story of README means.
func (d *deployment) checkStory(sdk, points, null string, app bool) [][]string {
	d.t.Helper()
	id := sdk + "-sample-"
	ours := "JSONExtractString(context, 'story', 'sdk') = " + quote(sdk)
	step := func(s string) string { return ours + " AND JSONExtractString(context, 'story', 'step') = " + quote(s) }
	added := step("17-added-2")
	facts := [][]string{}
	fact := func(name, wanted, sql string, args ...any) {
		got := ""
		eventually(d.t, 30*time.Second, sdk+": "+name, func() error { // the dictionary of people is read anew now and then
			got = d.value(sql, args...)
			return want(name, wanted, got)
		})
		facts = append(facts, []string{sdk, name, wanted, got})
	}
	types := `SELECT arrayStringConcat(arraySort(groupArray(concat(type, ' ', n))), ', ') FROM (SELECT type, toString(count()) AS n FROM events WHERE %s GROUP BY type)`
	pages := "page 14, screen 1"
	if app {
		pages = "screen 15"
	}
	fact("calls by type", "alias 1, group 1, identify 2, "+pages+", track 5", types, ours)
	fact("an integer above 2^53, odd", points, "SELECT JSONExtractRaw(properties, 'points_odd') FROM events WHERE %s", added)
	fact("an integer above 2^53, even", "9007199254740994", "SELECT JSONExtractRaw(properties, 'points_even') FROM events WHERE %s", added)
	fact("a name in three scripts and an emoji", "İstanbul çantası — «ß» 👩‍👩‍👧", "SELECT JSONExtractString(properties, 'name') FROM events WHERE %s", added)
	fact("a brand that is null", null, "SELECT JSONExtractRaw(properties, 'brand') FROM events WHERE %s", added)
	fact("a trait that is null", null, "SELECT JSONExtractRaw(traits, 'birthday') FROM events WHERE %s", step("18-identify-web"))
	fact("an address, apart", "Kraków", "SELECT JSONExtractString(address, 'city') FROM events WHERE %s", step("18-identify-web"))
	fact("a price of two digits", "349.99", "SELECT toString(price) FROM events WHERE %s", step("16-added-1"))
	fact("U+2028 in a note", "line one\nline\u2028two\t\"quoted\" \\ back/slash",
		"SELECT JSONExtractString(properties, 'gift_note') FROM events WHERE %s", step("24-order"))
	fact("the order's total and currency", "360.28 PLN", "SELECT concat(toString(total), ' ', currency) FROM events WHERE %s", step("24-order"))
	fact("01-home came an hour before 02-shoes", "3600",
		"SELECT toString(dateDiff('second', minIf(time, JSONExtractString(context, 'story', 'step') = '01-home'), minIf(time, JSONExtractString(context, 'story', 'step') = '02-shoes'))) FROM events WHERE %s", ours)
	fact("people behind visitor, user and second device", "1",
		"SELECT toString(uniqExact(person_id)) FROM events_by_person WHERE startsWith(anonymous_id, %[1]s) OR startsWith(user_id, %[1]s)", quote(id))
	fact("their events under that person", "24",
		"SELECT toString(count()) FROM events_by_person WHERE person_id IN (SELECT person_id FROM events_by_person WHERE user_id = %s)", quote(id+"user"))
	return append(facts, d.checkPerson(sdk, id)...)
}

// checkPerson asks the profile API for each identifier of the story: all lead to one profile.
func (d *deployment) checkPerson(sdk, id string) [][]string {
	d.t.Helper()
	ids := [][2]string{
		{"user_id", id + "user"}, {"anonymous_id", id + "web"}, {"anonymous_id", id + "app"}, {"user_id", id + "lead"},
		{"email", strings.ToLower("Anna.Wrobel+" + sdk + "-sample@Example.COM")},
	}
	found := map[string]bool{}
	for _, x := range ids {
		eventually(d.t, 30*time.Second, "the profile of "+x[1], func() error {
			p, err := d.profile(x[0], x[1])
			if err != nil {
				return err
			}
			counts, _ := p["counts"].(map[string]any)
			if err := want("events of "+x[1], "24", fmt.Sprint(counts["events"])); err != nil {
				return err
			}
			found[fmt.Sprint(p["id"])] = true
			return want("orders", "1", fmt.Sprint(p["orders"]))
		})
	}
	require.Len(d.t, found, 1, sorted(found))
	return [][]string{{sdk, "profiles behind user, visitor, second device, lead and e-mail", "1", strconv.Itoa(len(found))}}
}
