package stitcher

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/undo"
)

// say gives a command on identifiers, each a type and a value, and waits for its end.
func (e *env) say(id string, kind identity.CommandKind, split string, words ...[2]string) undo.Status {
	e.t.Helper()
	c := identity.Command{ID: id, Kind: kind, Actor: "eve", Reason: "ticket 8", At: receivedAt(), Split: split}
	for _, w := range words {
		c.Identifiers = append(c.Identifiers, identity.Evidence{Type: w[0], Value: w[1], Node: e.node(w[0], w[1]).String()})
	}
	require.NoError(e.t, undo.Send(e.t.Context(), e.stream, undo.NewLedger(e.store, e.topics), e.topics, &c))
	return e.commandEnds(id)
}

// decided is whose an event is, and what was set aside for it.
func (e *env) decided(messageID string) (profile, aside string) {
	e.t.Helper()
	e.settled()
	for _, r := range e.read(e.topics.EventsIdentified()) {
		if header(r, topic.HeaderMessageID) == messageID && header(r, topic.HeaderKind) == string(topic.KindEvent) {
			return string(r.Key), header(r, topic.HeaderSetAside)
		}
	}
	e.t.Fatalf("%s is not on events.identified", messageID)
	return "", ""
}

// What operators say of identifiers holds from the next event on: two that must not be one person, until that is released;
// one that counts for nobody, until it counts again; two that are one. What can not be is refused, and says why. A graph
// that is made again knows it all.
func TestWhatOperatorsSay(t *testing.T) {
	e := newEnv(t)
	e.cfg.Identity.RulesFile = "" // the shipped one
	stop := e.startWith(&rowsOf{})
	email, bob, kiosk, carl := [2]string{event.Email, "x@example.com"}, [2]string{event.UserID, "bob"}, [2]string{event.AnonymousID, "kiosk"}, [2]string{event.UserID, "carl"}
	node := func(w [2]string) string { return e.node(w[0], w[1]).String() }
	both := `{"type":"identify","userId":"bob","traits":{"email":"x@example.com"}}`

	require.Equal(t, undo.Done, e.say("r1", identity.CommandReject, "", email, bob).State)
	e.send("bob", "web", "m1", "", both)
	profile, aside := e.decided("m1")
	require.Equal(t, node(bob), profile)
	require.Equal(t, "email:cut", aside)
	s := e.say("l1", identity.CommandLink, "", email, bob)
	require.Equal(t, undo.Refused, s.State)
	require.Contains(t, s.Error, "release that command first")

	require.Equal(t, undo.Done, e.say("b1", identity.CommandBlock, "", kiosk).State)
	e.send("kiosk", "web", "m2", "", `{"type":"identify","anonymousId":"kiosk","userId":"carl"}`)
	profile, aside = e.decided("m2")
	require.Equal(t, node(carl), profile)
	require.Equal(t, "anonymous_id:blocked", aside)
	e.send("kiosk", "web", "m3", "", `{"type":"track","event":"A","anonymousId":"kiosk"}`)
	profile, _ = e.decided("m3")
	require.NotContains(t, []string{node(kiosk), node(carl)}, profile, "a profile of its own")

	stop()
	_, err := e.rebuild()
	require.NoError(t, err)
	stop = e.startWith(&rowsOf{})
	defer stop()
	e.send("bob", "web", "m4", "", both)
	_, aside = e.decided("m4")
	require.Equal(t, "email:cut", aside)
	e.send("kiosk", "web", "m5", "", `{"type":"track","event":"A","anonymousId":"kiosk","userId":"carl"}`)
	_, aside = e.decided("m5")
	require.Equal(t, "anonymous_id:blocked", aside)

	require.Equal(t, undo.Done, e.say("b2", identity.CommandUnblock, "", kiosk).State)
	e.send("kiosk", "web", "m6", "", `{"type":"track","event":"A","anonymousId":"kiosk","userId":"carl"}`)
	_, aside = e.decided("m6")
	require.Empty(t, aside)
	s = e.say("x1", identity.CommandRelease, "nothing")
	require.Equal(t, undo.Refused, s.State)
	require.Contains(t, s.Error, "no split or reject that was carried out")
	require.Equal(t, undo.Done, e.say("x2", identity.CommandRelease, "r1").State)
	require.Equal(t, undo.Done, e.say("l2", identity.CommandLink, "", email, bob).State)
	s = e.say("l3", identity.CommandLink, "", bob, carl)
	require.Equal(t, undo.Refused, s.State)
	require.Contains(t, s.Error, "more values of a type than its limit")
	s = e.say("r2", identity.CommandReject, "", email, bob)
	require.Equal(t, undo.Refused, s.State)
	require.Contains(t, s.Error, identity.ErrOnePerson.Error())
	roots, err := identity.Lookup(t.Context(), identity.NewGraph(e.store, e.topics.Prefix), e.node(email[0], email[1]), e.node(bob[0], bob[1]),
		e.node(kiosk[0], kiosk[1]), e.node(carl[0], carl[1]))
	require.NoError(t, err)
	require.Equal(t, roots[0], roots[1])
	require.Equal(t, roots[2], roots[3])
	require.NotEqual(t, roots[0], roots[2])
}
