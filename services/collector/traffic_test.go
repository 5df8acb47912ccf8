package collector

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// captured is one line of testdata/*.jsonl.
type captured struct {
	Method, Path string
	Headers      map[string]string
	Body         json.RawMessage
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

// What real SDKs sent arrives with every id, digit and escape, once each, in the order of its batch.
func TestTrafficOfRealSDKs(t *testing.T) {
	for file, c := range map[string]struct {
		requests []int
		points   string // 9007199254740993 as this SDK could hold it
	}{
		"analytics-node.jsonl":           {[]int{9, 15}, "9007199254740992"},
		"segment-analytics-python.jsonl": {[]int{24}, "9007199254740993"},
	} {
		t.Run(file, func(t *testing.T) {
			f := newFixture(t)
			var recs []stream.Record
			for i, req := range traffic(t, file) {
				delete(req.Headers, "Content-Length")
				var headers []string
				for k, v := range req.Headers {
					headers = append(headers, k, v)
				}
				w := f.do(req.Method, req.Path, "", string(req.Body), headers...)
				require.Equal(t, 200, w.Code, w.Body)
				got := f.collected.take()
				require.Len(t, got, c.requests[i])
				var sent struct{ Batch []json.RawMessage }
				require.NoError(t, json.Unmarshal(req.Body, &sent))
				for k := range got {
					require.Equal(t, string(sent.Batch[k]), string(got[k].Value), "byte for byte")
				}
				recs = append(recs, got...)
			}
			require.Empty(t, f.rejected.take())
			checkStory(t, recs, strings.TrimSuffix(file, ".jsonl"), c.points)
		})
	}
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
	require.Equal(t, map[event.Type]int{event.Page: 14, event.Track: 5, event.Identify: 2, event.Alias: 1, event.Group: 1, event.Screen: 1}, types)
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
