package stitcher

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/suppression"
	"github.com/weft-cdp/weft/pkg/topic"
)

// What a door let in of somebody who was erased goes no further, leaves a trace that names nobody, and makes no node.
func TestEventsOfErasedPeopleGoNoFurther(t *testing.T) {
	e := newEnv(t)
	ann, mail := e.node(event.UserID, "ann"), e.node(event.Email, "ann@example.org")
	require.NoError(t, suppression.NewRegister(e.store, e.topics.Prefix).Add(t.Context(), []identity.Node{ann, mail}))
	e.send("ann", "web", "m1", "", `{"type":"track","event":"A","userId":"ann"}`)
	e.send("c-1", "web", "m2", "", `{"type":"identify","anonymousId":"c-1","traits":{"email":"Ann@example.org"}}`)
	e.send("bob", "web", "m3", "", `{"type":"track","event":"A","userId":"bob"}`)
	stop := e.start()
	e.settled()
	stop()
	events := e.read(e.topics.EventsIdentified())
	require.Len(t, events, 1)
	require.Equal(t, "m3", header(events[0], topic.HeaderMessageID))
	traces := e.read(e.topics.EventsRejected())
	require.Len(t, traces, 2)
	for _, r := range traces {
		require.Equal(t, ReasonSuppressed, header(r, topic.HeaderReason))
		require.Equal(t, "web", header(r, topic.HeaderSource), "it counts in the audit")
		require.Equal(t, "1790000000123", header(r, topic.HeaderReceivedAt))
		require.Empty(t, r.Value)
		require.Equal(t, header(r, topic.HeaderMessageID), string(r.Key))
	}
	require.Equal(t, map[string]float64{ReasonSuppressed: 2}, e.counts("weft_stitcher_rejected_total"))
	values, err := identity.NewGraph(e.store, e.topics.Prefix).Load(t.Context(), []identity.Node{ann, mail, e.node(event.AnonymousID, "c-1")})
	require.NoError(t, err)
	require.Equal(t, [][]byte{nil, nil, nil}, values)
}
