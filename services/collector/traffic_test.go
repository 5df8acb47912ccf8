package collector

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// captured is one line of testdata/*.jsonl.
type captured struct {
	Method, Path string
	Headers      map[string]string
	Gzip         bool // the body was packed
	Body         json.RawMessage
}

// text is the body as it was on the wire.
func (c captured) text(t testing.TB) string {
	if !c.Gzip {
		return string(c.Body)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write(c.Body)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return packed.String()
}

func traffic(t testing.TB, file string) []captured {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", filepath.Base(file))) //nolint:gosec // a name in this file
	require.NoError(t, err)
	var all []captured
	for _, line := range bytes.Split(bytes.TrimSpace(text), []byte("\n")) {
		var c captured
		require.NoError(t, json.Unmarshal(line, &c))
		all = append(all, c)
	}
	return all
}

// The calls that an SDK made, as its requests came, and what is its own in them.
var sdks = map[string]struct {
	events []int  // in each request that has any
	again  int    // events that it sent twice
	points string // 9007199254740993 as it could hold it
}{
	"analytics-node":           {[]int{9, 15}, 0, "9007199254740992"},
	"segment-analytics-python": {[]int{24}, 0, "9007199254740993"},
	"analytics-go":             {[]int{24}, 0, "9007199254740993"},
	"analytics-java":           {[]int{24}, 0, "9007199254740993"},
	"analytics-next":           {[]int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 0, "9007199254740992"},
	"analytics-next-batching":  {[]int{10, 10, 1, 3, 1, 3}, 4, "9007199254740992"}, // what is sent as the page goes is sent again if it stays
	"analytics-kotlin":         {[]int{24}, 0, "9007199254740993"},
	"rudder-sdk-node":          {[]int{1, 20, 3}, 0, "9007199254740992"},
	"rudder-sdk-python":        {[]int{24}, 0, "9007199254740993"},
}

// What real SDKs sent arrives with every id, digit and escape, once each, in the order of its batch.
func TestTrafficOfRealSDKs(t *testing.T) {
	files, err := filepath.Glob("testdata/*.jsonl")
	require.NoError(t, err)
	require.Len(t, files, len(sdks))
	for _, file := range files {
		sdk := strings.TrimSuffix(filepath.Base(file), ".jsonl")
		t.Run(sdk, func(t *testing.T) {
			f := newFixture(t)
			f.door.intake.now = func() time.Time { return time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC) } // when all were captured
			var recs []stream.Record
			var events []int
			for _, req := range traffic(t, file) {
				var headers []string
				for k, v := range req.Headers {
					if !strings.EqualFold(k, "Content-Length") && !strings.EqualFold(k, "Transfer-Encoding") { // our own
						headers = append(headers, k, v)
					}
				}
				w := f.do(req.Method, req.Path, "", req.text(t), headers...)
				require.Equal(t, 200, w.Code, w.Body)
				require.NotContains(t, w.Body.String(), "rejected")
				got := f.collected.take()
				checkItems(t, req.Body, got)
				if len(got) > 0 {
					events = append(events, len(got))
				}
				recs = append(recs, got...)
			}
			require.Equal(t, sdks[sdk].events, events)
			require.Empty(t, f.rejected.take())
			recs = firsts(t, recs)
			require.Len(t, recs, 24)
			checkStory(t, recs, sdk, sdks[sdk].points)
		})
	}
}

// checkItems: the records are the items of the body. An item of a batch that says nothing for all of them is there byte by byte,
// another with what the batch says and it does not, a single call without its key.
func checkItems(t *testing.T, body json.RawMessage, got []stream.Record) {
	if len(body) == 0 {
		require.Empty(t, got)
		return
	}
	var sent struct {
		Batch   []json.RawMessage
		Context map[string]any
	}
	require.NoError(t, json.Unmarshal(body, &sent))
	if sent.Batch == nil {
		sent.Batch = []json.RawMessage{body}
	}
	require.Len(t, got, len(sent.Batch))
	for k, item := range sent.Batch {
		if sent.Context == nil && !bytes.Contains(item, []byte(`"writeKey"`)) {
			require.Equal(t, string(item), string(got[k].Value), "byte for byte")
			continue
		}
		want := digits(t, item)
		delete(want, "writeKey")
		of, _ := want["context"].(map[string]any)
		for name, value := range sent.Context {
			if _, own := of[name]; !own {
				of[name] = value
			}
		}
		require.Equal(t, want, digits(t, got[k].Value))
	}
}

// digits reads an object, its numbers as they are written.
func digits(t *testing.T, text []byte) (object map[string]any) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	require.NoError(t, d.Decode(&object))
	return object
}

// firsts leaves out what has a message id that is there before, as the stitcher does.
func firsts(t *testing.T, recs []stream.Record) (first []stream.Record) {
	seen := map[string]bool{}
	for _, r := range recs {
		m, err := topic.ParseMeta(r.Headers)
		require.NoError(t, err)
		e, err := event.Decode(r.Value, m)
		require.NoError(t, err)
		if !seen[e.MessageID] {
			first = append(first, r)
		}
		seen[e.MessageID] = true
	}
	return first
}

func checkStory(t *testing.T, recs []stream.Record, sdk, points string) {
	steps, ids, types := map[string]*event.Event{}, map[string]bool{}, map[event.Type]int{}
	separators := 0
	for _, r := range recs {
		m, err := topic.ParseMeta(r.Headers)
		require.NoError(t, err)
		require.Equal(t, "web", m.Source)
		require.False(t, m.SentAt.IsZero())
		e, err := event.Decode(r.Value, m)
		require.NoError(t, err)
		require.NoError(t, e.Validate())
		step := event.Text(e.Context("story", "step"))
		require.Nil(t, steps[step], "twice: "+step)
		steps[step] = e
		ids[e.MessageID] = true
		types[e.Type]++
		if e.AnonymousID != "" {
			require.Equal(t, e.AnonymousID, string(r.Key))
		} else {
			require.Equal(t, e.UserID, string(r.Key))
		}
		separators += bytes.Count(r.Value, []byte("\u2028")) + bytes.Count(r.Value, []byte(`\u2028`))
	}
	require.Len(t, steps, 24)
	require.Len(t, ids, 24)
	pages := map[event.Type]int{event.Page: 14, event.Screen: 1}
	if sdk == "analytics-kotlin" {
		pages = map[event.Type]int{event.Screen: 15} // an app has no pages
	}
	maps.Copy(pages, map[event.Type]int{event.Track: 5, event.Identify: 2, event.Alias: 1, event.Group: 1})
	require.Equal(t, pages, types)
	require.Positive(t, separators, "the traffic has U+2028")

	prefix := sdk + "-sample-"
	added := steps["17-added-2"]
	require.Equal(t, points, event.Text(added.Property("points_odd")))
	require.Equal(t, "9007199254740994", event.Text(added.Property("points_even")))
	require.Equal(t, "İstanbul çantası — «ß» 👩‍👩‍👧", event.Text(added.Property("name")))
	require.Equal(t, "349.99", event.Text(steps["16-added-1"].Property("price")))
	identify := steps["18-identify-web"]
	require.Equal(t, []event.Identifier{{Type: event.UserID, Value: prefix + "user"}, {Type: event.AnonymousID, Value: prefix + "web"},
		{Type: event.Email, Value: "Anna.Wrobel+" + sdk + "-sample@Example.COM"}}, identify.Identifiers())
	alias := steps["20-alias"]
	require.Equal(t, prefix+"lead", alias.PreviousID)
	require.Equal(t, prefix+"household", steps["21-group"].GroupID)
	home, shoes := steps["01-home"], steps["02-shoes"]
	require.InDelta(t, 3600, shoes.Time.Sub(home.Time).Seconds(), 1, "its timestamp was set by the caller")
	require.Equal(t, prefix+"app", steps["24-order"].AnonymousID)
	require.Equal(t, "Order Completed", steps["24-order"].Name)
}
