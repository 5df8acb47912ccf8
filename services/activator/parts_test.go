package activator

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

const (
	splitCommand = "command-1"
	partOfAnn    = "00000000-0000-8000-8000-00000000000a"
	partOfBob    = "00000000-0000-8000-8000-00000000000b"
)

// again tells a part a record again, which stands in a topic already.
func (e *env) again(part string, kind topic.Kind, topicName string, r stream.Record) {
	e.t.Helper()
	e.seq++
	hs := slices.DeleteFunc(slices.Clone(r.Headers), func(h topic.Header) bool {
		return h.Key == topic.HeaderPosition || h.Key == topic.HeaderKind
	})
	e.produce(e.topics.EventsIdentified(), stream.Record{Key: []byte(part), Value: r.Value, Headers: append(hs,
		topic.Header{Key: topic.HeaderKind, Value: []byte(kind)}, topic.Header{Key: topic.HeaderRefold, Value: []byte(splitCommand)},
		topic.Header{Key: topic.HeaderPosition, Value: []byte(topic.Position{Stage: topic.StageCommands, Seq: e.seq}.String())},
		topic.Header{Key: topic.HeaderOrigin, Value: fmt.Appendf(nil, "%s:%d:%d", topicName, r.Partition, r.Offset)})})
}

// split takes people apart who were taken for one, as of now.
func (e *env) split(parts map[string]string) {
	e.t.Helper()
	as := e.now()
	told := e.read(e.topics.EventsIdentified())
	for person, part := range parts {
		b, err := json.Marshal(identity.Parted{Command: splitCommand, Node: person, Into: part, Person: person, Time: as})
		require.NoError(e.t, err)
		e.record(person, topic.KindSplit, event.Meta{}, string(b))
		for _, name := range []string{e.topics.ActivationsRequested(), e.topics.ActivationsSettled()} {
			for _, r := range e.read(name) {
				e.again(part, topic.KindDecision, name, r)
			}
		}
	}
	for _, r := range told {
		kind, _ := topic.Get(r.Headers, topic.HeaderKind)
		if part := parts[string(r.Key)]; part != "" && topic.Kind(kind) == topic.KindEvent {
			e.again(part, topic.KindEvent, e.topics.EventsIdentified(), r)
		}
	}
	e.decided()
	for _, part := range parts {
		b, err := json.Marshal(identity.Part{Command: splitCommand, Node: part, Time: as})
		require.NoError(e.t, err)
		e.again(part, topic.KindRefolded, e.topics.EventsIdentified(), stream.Record{Value: b})
	}
	e.decided()
}

// TestSplitPeopleAreWrittenToOnce: what was sent to the person that was is not sent again to either; the cart that waits goes on
// with the one whose it is, and only with that one's order ends; what the other ordered is not theirs. A rebuild knows the same.
func TestSplitPeopleAreWrittenToOnce(t *testing.T) {
	e := newEnv(t)
	_, stop := e.start()
	e.reachable("p0")
	e.reachable("p1")
	e.merge("p1", "p0")
	e.decided()
	e.shops("p0", "c0")
	e.decided()
	e.pass(time.Hour + time.Minute)
	e.receipts(1) // they were written to about c0
	e.shops("p1", "c1")
	e.decided()
	e.pass(10 * time.Minute)
	e.send("p0", `"type":"page","name":"Home"`) // puts c1 off, which is not theirs
	e.decided()
	e.pass(55 * time.Minute)
	e.quiet()
	e.split(map[string]string{"p0": partOfAnn, "p1": partOfBob})
	require.Len(t, e.settled(), 1, "nothing is said of what is told again")
	for _, p := range []string{"p0", "p1"} {
		require.Contains(t, e.known()[p], map[string]string{"p0": partOfAnn, "p1": partOfBob}[p])
	}
	e.shops(partOfAnn, "c2")
	e.shops(partOfBob, "c3")
	e.send("p0", `"type":"track","event":"Product Added","properties":{"cart_id":"c9","product_id":"tea","price":1}`) // late, and nobody's
	e.decided()
	e.pass(10 * time.Minute)
	e.orders(partOfAnn)
	e.decided()
	e.pass(time.Hour)
	e.rest()
	ends := map[string]string{}
	for _, r := range e.settled() {
		ends[r.Cart.ID] += r.Profile + " " + r.Reason
	}
	require.Equal(t, "p0 sent", ends["c0"], "once")
	require.Equal(t, partOfAnn+" purchased", ends["c2"])
	require.Equal(t, partOfBob+" sent", ends["c3"], "the other's order is not theirs")
	require.NotContains(t, ends, "c9")
	require.NotContains(t, ends, "c1", "alone, it was due before the split: nothing is made up for")
	require.Len(t, e.mail.mails(), 2)
	before := e.known()
	require.Eventually(t, func() bool { return e.pending() == 0 }, waitAtMost, look)
	stop()
	for _, k := range e.redis.Keys() {
		if len(k) > 16 && k[:16] == "{test.activator:" {
			e.redis.Del(k)
		}
	}
	report := e.rebuild()
	require.Zero(t, report.Untold)
	require.Equal(t, before, e.known())
}
