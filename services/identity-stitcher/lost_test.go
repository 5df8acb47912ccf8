package stitcher

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/topic"
)

// graphKeys are all keys of the graph with their values, the counts of writes among them.
func (e *env) graphKeys() map[string]string {
	e.t.Helper()
	m := map[string]string{}
	for _, k := range e.redis.Keys() {
		if strings.HasPrefix(k, "{"+e.topics.Prefix+"g:") {
			v, err := e.redis.Get(k)
			require.NoError(e.t, err)
			m[k] = v
		}
	}
	return m
}

// goBack brings all of the graph back, and nothing else: as a node of a cluster that holds no slot of the stage.
func (e *env) goBack(keys map[string]string) {
	e.t.Helper()
	for k := range e.graphKeys() {
		e.redis.Del(k)
	}
	for k, v := range keys {
		require.NoError(e.t, e.redis.Set(k, v))
	}
}

// ends are the lengths of all that the stage publishes to.
func (e *env) ends() map[string][]int64 {
	e.t.Helper()
	m := map[string][]int64{}
	for _, name := range []string{e.topics.EventsIdentified(), e.topics.IdentitiesLinked(), e.topics.EventsRejected()} {
		ends, err := e.stream.EndOffsets(context.Background(), name)
		require.NoError(e.t, err)
		m[name] = ends
	}
	return m
}

// stopped waits for a service that ends by itself.
func stopped(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatal("nobody stopped")
		return nil
	}
}

// TestAGraphThatWentBackStopsTheStage: the node of a cluster that goes back holds nodes of the graph, and nothing that
// a slot of the stage counts. Nobody may decide on it: not who is idle, not who gets what touches it, not who starts.
func TestAGraphThatWentBackStopsTheStage(t *testing.T) {
	link := func(e *env, n int) {
		e.send(fmt.Sprint("k", n), "web", fmt.Sprint("m", n), "", fmt.Sprintf(`{"type":"identify","anonymousId":"a%d","userId":"u%d"}`, n, n))
		e.settled()
	}
	for name, tc := range map[string]struct {
		lost    int  // links that are lost; 0: the graph is as it was
		restart bool // before the loss is met
		more    bool // an event that stands on what was lost
	}{
		"idle":                      {lost: 1},
		"the last link alone, met":  {lost: 1, more: true},
		"many, met":                 {lost: 5, more: true},
		"met by another process":    {lost: 1, restart: true, more: true},
		"another process, idle":     {lost: 5, restart: true},
		"nothing lost":              {more: true},
		"nothing lost, and restart": {restart: true, more: true},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			done := make(chan error, 1)
			start := func() (stop func()) {
				ctx, cancel := context.WithCancel(context.Background())
				t.Cleanup(cancel)
				s := e.service()
				go func() { done <- s.Run(ctx) }()
				return cancel
			}
			stop := start()
			link(e, 0)
			var before map[string]string
			for i := range tc.lost {
				before = e.graphKeys()
				link(e, 1+i)
			}
			if tc.lost > 1 {
				before = nil // the node is empty
			}
			if tc.restart {
				stop()
				require.NoError(t, <-done)
			}
			if tc.lost > 0 {
				e.goBack(before)
			}
			ends := e.ends()
			if tc.more {
				e.send("again", "web", "m90", "", fmt.Sprintf(`{"type":"identify","anonymousId":"a%d","traits":{"email":"x@example.com"}}`, tc.lost))
			}
			if tc.restart {
				stop = start()
			}
			if tc.lost > 0 {
				err := stopped(t, done)
				require.ErrorIs(t, err, keyed.ErrStateLost)
				require.ErrorIs(t, err, identity.ErrLost)
				require.Equal(t, ends, e.ends(), "nothing was published")
				return
			}
			e.settled()
			require.NotEqual(t, ends, e.ends())
			stop()
			require.NoError(t, <-done)
		})
	}
}

// TestARebuiltGraphIsNotTakenForLost: the slots that vouched for more are emptied, and the counts go on.
func TestARebuiltGraphIsNotTakenForLost(t *testing.T) {
	for name, lose := range map[string]func(e *env, before map[string]string){
		"gone back":   func(e *env, before map[string]string) { e.goBack(before) },
		"the graph":   func(e *env, _ map[string]string) { e.goBack(nil) },
		"all is lost": func(e *env, _ map[string]string) { e.redis.FlushAll() },
		"nothing":     func(*env, map[string]string) {},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			stop := e.start()
			e.send("k", "web", "m1", "", `{"type":"identify","anonymousId":"a1","userId":"u1"}`)
			e.settled()
			before := e.graphKeys()
			e.send("k", "web", "m2", "", `{"type":"identify","anonymousId":"a2","userId":"u1"}`)
			e.settled()
			stop()
			lose(e, before)
			_, err := e.rebuild()
			require.NoError(t, err)
			stop = e.start()
			e.send("k", "web", "m3", "", `{"type":"page","anonymousId":"a2"}`)
			e.settled()
			stop()
			events := ofKind(e.read(e.topics.EventsIdentified()), topic.KindEvent)
			require.Len(t, events, 3)
			require.Equal(t, e.node(event.UserID, "u1").String(), string(events[2].Key))
		})
	}
}
