package stitcher

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// What an event was resolved without stands in its header, whatever the reason.
func TestSetAsideHeader(t *testing.T) {
	s := openShop(t)
	got := s.play(
		`{"type":"identify","userId":"ann","anonymousId":"a1","traits":{"email":"ann@x.pl"}}`,
		`{"type":"identify","userId":"ben","traits":{"email":"ann@x.pl"}}`,
		`{"type":"page","anonymousId":"a2","context":{"externalIds":[{"id":"f1","type":"fingerprint","collection":"users","encoding":"none"}]}}`,
		`{"type":"identify","anonymousId":"a3","traits":{"phone":"+48601234567"}}`)
	require.Equal(t, answer{profile: s.user("ann")}, got[0])
	require.Equal(t, answer{s.user("ben"), "email:limit"}, got[1])
	require.Equal(t, answer{s.node(event.AnonymousID, "a2").String(), "fingerprint:weak"}, got[2])
	s.untrusted = true
	got = s.play(`{"type":"identify","traits":{"email":"ann@x.pl","phone":"+48601234567"}}`)
	require.Equal(t, answer{s.user("ann"), "phone:untrusted"}, got[0], "two known people")
	require.Equal(t, map[string]float64{"limit": 1, "weak": 1, "untrusted": 1}, s.counts("weft_stitcher_set_aside_total"))
}

// A link that a cap stops is published once, and the event goes without it.
func TestSuspendedLinksArePublished(t *testing.T) {
	s := newShop(t)
	s.cfg.Identity.Governor.MembersPerPerson = 3
	s.stop = s.start()
	t.Cleanup(s.stop)
	in := func(device string) string {
		return fmt.Sprintf(`{"type":"identify","userId":"ann","anonymousId":%q}`, device)
	}
	ann := answer{profile: s.user("ann")}
	over := answer{s.user("ann"), "anonymous_id:governor"}
	require.Equal(t, []answer{ann, ann, over}, s.play(in("a1"), in("a2"), in("a3")))
	require.Equal(t, []answer{over}, s.play(in("a3")))
	suspended := ofKind(s.read(s.topics.IdentitiesLinked()), topic.KindSuspend)
	require.Len(t, suspended, 1, "it is known to be published")
	x, err := identity.ParseSuspension(suspended[0].Value)
	require.NoError(t, err)
	require.Equal(t, x.Key(), string(suspended[0].Key))
	require.Equal(t, identity.CapMembers, x.Cap)
	require.Equal(t, "m2", x.Cause.MessageID)
	require.Equal(t, []identity.Evidence{
		{Type: event.UserID, Value: "ann", Node: s.user("ann")}, {Type: event.AnonymousID, Value: "a3", Node: s.node(event.AnonymousID, "a3").String()},
	}, x.Evidence)
	require.Equal(t, map[string]float64{string(identity.CapMembers): 1}, s.counts("weft_stitcher_suspended_total"))
}

// strangers is how many people a poisoned stream speaks of.
const strangers = 1000

// Poisoned streams through two stitchers: a thousand people are known, and then come events of all of them with what is not
// theirs. docs/identity.md states the numbers.
func TestPoisonedStreams(t *testing.T) {
	var swapped []event.Identifier
	for i := 0; i < strangers; i += 10 {
		swapped = append(swapped, event.Identifier{Type: event.UserID, Value: fmt.Sprintf("p%d@people.example", i)})
	}
	for name, c := range map[string]struct {
		body    func(i int) string
		foreign []event.Identifier
		changed int // people whose identifiers are not exactly their own, at most
		shared  int // devices that count as shared
	}{
		"a constant device": {func(i int) string {
			return fmt.Sprintf(`{"type":"track","event":"E","userId":"user-%d","anonymousId":"kiosk-7"}`, i)
		}, []event.Identifier{{Type: event.AnonymousID, Value: "kiosk-7"}}, 1, 1},
		"a constant address": {func(i int) string {
			return fmt.Sprintf(`{"type":"identify","userId":"user-%d","anonymousId":"device-%d","traits":{"email":"till@shop.example"}}`, i, i)
		}, []event.Identifier{{Type: event.Email, Value: "till@shop.example"}}, 1, 0},
		// Those that are sent wrongly are somebody else's log-in on the own device, by all that can be known.
		"a swapped pair of fields": {func(i int) string {
			if i%10 > 0 {
				return fmt.Sprintf(`{"type":"identify","userId":"user-%d","anonymousId":"device-%d","traits":{"email":"p%d@people.example"}}`, i, i, i)
			}
			return fmt.Sprintf(`{"type":"identify","userId":"p%d@people.example","anonymousId":"device-%d","traits":{"email":"user-%d"}}`, i, i, i)
		}, swapped, 0, strangers / 10},
		"a null that is a text": {func(i int) string {
			return fmt.Sprintf(`{"type":"identify","userId":"null","anonymousId":"device-%d","traits":{"email":"undefined"}}`, i)
		}, nil, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t)
			stops := []func(){s.start(), s.start()}
			s.crowd(0, func(i int) string {
				return fmt.Sprintf(`{"type":"identify","userId":"user-%d","anonymousId":"device-%d","traits":{"email":"p%d@people.example"}}`, i, i, i)
			})
			require.Zero(t, s.changed())
			s.crowd(strangers, c.body)
			require.LessOrEqual(t, s.changed(c.foreign...), c.changed)
			for _, stop := range stops {
				stop()
			}
			shared := map[string]bool{}
			for _, r := range ofKind(s.read(s.topics.IdentitiesLinked()), topic.KindState) {
				shared[string(r.Key)] = true
			}
			require.Len(t, shared, c.shared)
			require.Len(t, ofKind(s.read(s.topics.EventsIdentified()), topic.KindEvent), 2*strangers, "no event is lost")
		})
	}
}

// crowd sends an event of each stranger, those of one in order.
func (s *shop) crowd(first int, body func(i int) string) {
	s.t.Helper()
	batches := map[int][]stream.Record{}
	for i := range strangers {
		key := fmt.Appendf(nil, "device-%d", i)
		p := topic.Partition(key, testPartitions)
		batches[p] = append(batches[p], stream.Record{Key: key, Value: []byte(body(i)), Headers: topic.MetaHeaders(event.Meta{
			Source: "web", Brand: "main", MessageID: fmt.Sprint("m", first+i), ReceivedAt: s.received, Trusted: true})})
	}
	for p, records := range batches {
		require.NoError(s.t, s.stream.Produce(context.Background(), s.topics.EventsCollected(), p, records))
	}
	s.settled()
}

// changed counts the strangers who are not exactly their own identifiers, as far as these and foreign ones go.
func (s *shop) changed(foreign ...event.Identifier) int {
	s.t.Helper()
	rules := s.rules()
	var nodes []identity.Node
	add := func(typ, value string) {
		n, ok := rules.Node(event.Identifier{Type: typ, Value: value})
		require.True(s.t, ok)
		nodes = append(nodes, n)
	}
	for i := range strangers {
		add(event.UserID, fmt.Sprint("user-", i))
		add(event.AnonymousID, fmt.Sprint("device-", i))
		add(event.Email, fmt.Sprintf("p%d@people.example", i))
	}
	for _, id := range foreign {
		add(id.Type, id.Value)
	}
	roots, err := identity.Lookup(s.t.Context(), identity.NewGraph(s.store, s.topics.Prefix), nodes...)
	require.NoError(s.t, err)
	named := map[identity.Node]int{}
	for _, r := range roots {
		named[r]++
	}
	n := 0
	for i := range strangers {
		own := roots[3*i : 3*i+3]
		if own[0] != own[1] || own[0] != own[2] || named[own[0]] != 3 {
			n++
		}
	}
	return n
}

// Redis is lost: what devices are comes back from the topics, and a slice begins.
func TestSharedDevicesAreRebuilt(t *testing.T) {
	s := newShop(t)
	s.received = receivedAt().AddDate(0, 0, 1)
	stop := s.start()
	const page = `{"type":"page","anonymousId":"a1"}`
	got := s.play(`{"type":"identify","userId":"ann","anonymousId":"a1"}`, `{"type":"identify","userId":"ben","anonymousId":"a1"}`, page,
		`{"type":"identify","userId":"cy","anonymousId":"a2"}`, `{"type":"track","event":"Logged Out","anonymousId":"a2"}`,
		`{"type":"identify","userId":"dan","anonymousId":"a3"}`, `{"type":"track","event":"Logged Out","anonymousId":"a3"}`, `{"type":"identify","userId":"dan","anonymousId":"a3"}`)
	stop()
	before := got[2]
	require.True(t, s.isSlice(before.profile))
	s.redis.FlushAll()
	_, err := s.rebuild()
	require.NoError(t, err)
	stop = s.start()
	got = s.play(page, `{"type":"page","anonymousId":"a2"}`, `{"type":"page","anonymousId":"a3"}`, `{"type":"page","userId":"ben","anonymousId":"a1"}`)
	stop()
	require.True(t, s.isSlice(got[0].profile))
	require.Equal(t, "anonymous_id:shared_device", got[0].aside)
	require.True(t, s.isSlice(got[1].profile))
	require.Equal(t, "anonymous_id:logged_out", got[1].aside)
	require.Equal(t, answer{profile: s.user("dan")}, got[2], "he has come back")
	require.Equal(t, answer{s.user("ben"), "anonymous_id:shared_device"}, got[3])
	require.Len(t, ofKind(s.read(s.topics.IdentitiesLinked()), topic.KindState), 4, "nothing is told again: shared, out, out, in")
}
