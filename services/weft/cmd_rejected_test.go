package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/topic"
)

// reject writes a record of events.rejected.
func (k *topics) reject(source, reason, body string, received time.Time) {
	k.t.Helper()
	m := event.Meta{Source: source, MessageID: "m", ReceivedAt: received}
	k.put(k.set.EventsRejected(), "u", body, append(topic.MetaHeaders(m),
		topic.Header{Key: topic.HeaderReason, Value: []byte(reason)}, topic.Header{Key: topic.HeaderError, Value: []byte(reason + ": because")},
		topic.Header{Key: topic.HeaderService, Value: []byte(topic.StageCollector)}, topic.Header{Key: topic.HeaderOrigin, Value: []byte("/v1/track")})...)
}

func TestRejectedEventsAreListedAndShown(t *testing.T) {
	k, now := newTopics(t), time.Now().Truncate(time.Second)
	for range 3 {
		k.reject("web", "invalid_json", "{\"a\":\x1b[2J", now)
	}
	k.reject("app", "missing_event", `{"userId":"Find-Me","n":1.10}`, now.Add(-time.Hour))
	k.reject("app", "duplicate", "", now)
	code, stdout, stderr := k.weft("rejected list")
	require.Zero(t, code, stderr)
	require.Regexp(t, `(?m)^3 +invalid_json +web +collector .*because$`, stdout)
	require.Regexp(t, `(?m)^1 +missing_event +app +collector `, stdout)
	require.NotContains(t, stdout, "duplicate")
	require.NotContains(t, stdout, "\x1b")
	for filter, want := range map[string]int{
		"--reason missing_event": 1, "--source web": 3, "--source nobody": 0, "--since 30m": 3, "--until 30m": 1, "--text-in find-me": 1,
		"--service collector": 4, "--reason duplicate": 1, "--limit 2 --source web": 2,
	} {
		_, stdout, stderr = k.weft("rejected list --json " + filter)
		require.Equal(t, want, strings.Count(stdout, `"position":`), filter+stderr)
	}
	_, stdout, _ = k.weft("rejected list --json --text-in find-me")
	require.Contains(t, stdout, `"body":{"userId":"Find-Me","n":1.10}`)

	_, list, _ := k.weft("rejected list --reason missing_event")
	lines := strings.Split(list, "\n")
	position, _, _ := strings.Cut(lines[3], " ")
	code, stdout, stderr = k.weft("rejected show " + position)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "weft.events.rejected:"+position+"\n")
	require.Contains(t, stdout, "weft-reason: missing_event\n")
	require.Contains(t, stdout, "\n  \"n\": 1.10\n")

	for line, want := range map[string]string{
		"rejected show 99:0":                    "weft.events.rejected has the partitions 0 to 11",
		"rejected show x":                       `want a position such as weft.events.rejected:3:1704 or 3:1704, found "x"`,
		"rejected replay":                       "which? give positions, filters such as --reason, or --all",
		"rejected replay 1:0 --all":             "give positions or filters, not both",
		"rejected replay --all --set nonsense":  "--set: want PATH=EXPRESSION",
		"rejected replay --all --set a=event.":  "1:7:",
		"rejected replay --all --text lowr(te)": "--text: 1:5:",
	} {
		code, _, stderr = k.weft(line)
		require.NotZero(t, code, line)
		require.Contains(t, stderr, want, line)
	}
}
