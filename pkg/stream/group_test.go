package stream

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/topic"
)

// crew is the owners of one member: it notes what it holds.
type crew struct {
	mu     sync.Mutex
	held   map[int]*Claim
	cancel context.CancelFunc
	ended  chan error
}

func (w *crew) own(ctx context.Context, cl *Claim) error {
	w.mu.Lock()
	w.held[cl.Partition] = cl
	w.mu.Unlock()
	<-ctx.Done()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.held, cl.Partition)
	return ctx.Err()
}

func (w *crew) claims() map[int]*Claim {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[int]*Claim{}
	for p, cl := range w.held {
		out[p] = cl
	}
	return out
}

func (w *crew) holds(n int) func() bool { return func() bool { return len(w.claims()) == n } }

func join(t testing.TB, c *Client, group string, topics ...string) *crew {
	t.Helper()
	return joinAs(t, (*Client).RunGroup, c, GroupOptions{Group: group, Topics: topics})
}

func joinAs(t testing.TB, run runGroup, c *Client, opt GroupOptions) *crew {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	w := &crew{held: map[int]*Claim{}, cancel: cancel, ended: make(chan error, 1)}
	go func() { w.ended <- run(c, ctx, opt, w.own) }()
	t.Cleanup(cancel)
	return w
}

func (w *crew) leave(t testing.TB) {
	t.Helper()
	w.cancel()
	require.NoError(t, <-w.ended)
	require.Empty(t, w.claims())
}

// groupConformance holds both implementations of a group to what they share.
func groupConformance(t *testing.T, brokers []string) {
	for what, run := range memberships() {
		t.Run(what, func(t *testing.T) {
			t.Run("split and take over", func(t *testing.T) { testTakeOver(t, run, brokers) })
			t.Run("stale commit", func(t *testing.T) { testStaleCommit(t, run, brokers) })
			t.Run("rejoin", func(t *testing.T) { testRejoin(t, run, brokers) })
			t.Run("owner's errors", func(t *testing.T) { testOwnerErrors(t, run, brokers) })
			t.Run("missing topic", func(t *testing.T) { testMissingTopic(t, run, brokers) })
		})
	}
}

func testTakeOver(t *testing.T, run runGroup, brokers []string) {
	c1, c2, ctx := client(t, brokers), client(t, brokers), testContext(t)
	n, group := newTopic(t, c1, "take-over", 4), name("group")
	a := joinAs(t, run, c1, GroupOptions{Group: group, Topics: []string{n}})
	require.Eventually(t, a.holds(4), patience, 10*time.Millisecond)
	for p, cl := range a.claims() {
		require.Equal(t, int64(-1), cl.Offset)
		require.Empty(t, cl.Metadata)
		require.NoError(t, cl.Commit(ctx, int64(p), fmt.Sprintf("meta %d", p)))
	}
	b := joinAs(t, run, c2, GroupOptions{Group: group, Topics: []string{n}})
	require.Eventually(t, func() bool { return a.holds(2)() && b.holds(2)() }, patience, 10*time.Millisecond)
	both := a.claims()
	for p, cl := range b.claims() {
		require.NotContains(t, both, p, "no partition has two owners")
		require.Equal(t, int64(p), cl.Offset)
		require.Equal(t, fmt.Sprintf("meta %d", p), cl.Metadata)
	}
	a.leave(t)
	require.Eventually(t, b.holds(4), patience, 10*time.Millisecond)
	b.leave(t)

	committed, err := c1.Committed(ctx, group, n)
	require.NoError(t, err)
	require.Equal(t, []Committed{{0, "meta 0"}, {1, "meta 1"}, {2, "meta 2"}, {3, "meta 3"}}, committed)
	committed, err = c1.Committed(ctx, name("no-group"), n)
	require.NoError(t, err)
	require.Equal(t, Committed{Offset: -1}, committed[0])
}

func testStaleCommit(t *testing.T, run runGroup, brokers []string) {
	c1, c2, ctx := client(t, brokers), client(t, brokers), testContext(t)
	n, group := newTopic(t, c1, "stale", 2), name("group")
	a := joinAs(t, run, c1, GroupOptions{Group: group, Topics: []string{n}})
	require.Eventually(t, a.holds(2), patience, 10*time.Millisecond)
	old := a.claims()
	b := joinAs(t, run, c2, GroupOptions{Group: group, Topics: []string{n}})
	require.Eventually(t, func() bool { return a.holds(1)() && b.holds(1)() }, patience, 10*time.Millisecond)
	for _, cl := range b.claims() {
		require.NoError(t, cl.Commit(ctx, 7, "new"))
		require.ErrorIs(t, old[cl.Partition].Commit(ctx, 3, "old"), ErrFenced, "its generation is over")
	}
	a.leave(t)
	require.Eventually(t, b.holds(2), patience, 10*time.Millisecond)
	for _, cl := range old {
		require.ErrorIs(t, cl.Commit(ctx, 3, "old"), ErrFenced, "its member is gone")
	}
	b.leave(t)
	committed, err := c1.Committed(ctx, group, n)
	require.NoError(t, err)
	require.NotContains(t, committed, Committed{3, "old"})
	require.Contains(t, committed, Committed{7, "new"})
}

func testRejoin(t *testing.T, run runGroup, brokers []string) {
	c := client(t, brokers)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	n, group := newTopic(t, c, "rejoin", 2), name("group")
	claims := make(chan *Claim, 10)
	ended := make(chan error, 1)
	var once sync.Once
	go func() {
		ended <- run(c, ctx, GroupOptions{Group: group, Topics: []string{n}}, func(ctx context.Context, cl *Claim) error {
			if cl.Partition == 0 {
				claims <- cl
				var again error
				once.Do(func() {
					again = fmt.Errorf("unknown outcome: %w", ErrRejoin)
					if err := cl.Commit(ctx, 5, "announcement"); err != nil {
						again = err
					}
				})
				if again != nil {
					return again
				}
			}
			<-ctx.Done()
			return nil
		})
	}()
	first, second := <-claims, <-claims
	require.NotEqual(t, first.Member(), second.Member())
	require.Equal(t, int64(5), second.Offset)
	require.Equal(t, "announcement", second.Metadata)
	require.ErrorIs(t, first.Commit(ctx, 6, ""), ErrFenced)
	require.NoError(t, second.Commit(ctx, 6, ""))
	cancel()
	require.NoError(t, <-ended)
}

func testOwnerErrors(t *testing.T, run runGroup, brokers []string) {
	c, ctx := client(t, brokers), testContext(t)
	n, group := newTopic(t, c, "errors", 1), name("group")
	var calls int
	members := map[string]bool{}
	err := run(c, ctx, GroupOptions{Group: group, Topics: []string{n}}, func(_ context.Context, cl *Claim) error {
		calls++
		members[cl.Member()] = true
		switch calls {
		case 1:
			return errTest
		case 2:
			return fmt.Errorf("produce: %w", ErrPermanent) // of the owner's own: not a reason to stop
		case 3:
			return fmt.Errorf("commit: %w", ErrFenced)
		}
		return fmt.Errorf("%w: %w", ErrStop, errTest)
	})
	require.ErrorIs(t, err, ErrStop)
	require.ErrorIs(t, err, errTest)
	require.Equal(t, 4, calls)
	require.Len(t, members, 4)
}

func testMissingTopic(t *testing.T, run runGroup, brokers []string) {
	c := client(t, brokers)
	n := name("late")
	w := joinAs(t, run, c, GroupOptions{Group: name("group"), Topics: []string{n}})
	require.Empty(t, w.claims())
	err := c.EnsureTopics(testContext(t), []topic.Spec{{Name: n, Partitions: 2}}, config.Topics{ReplicationFactor: 1, MinInsyncReplicas: 1})
	require.NoError(t, err)
	require.Eventually(t, w.holds(2), patience, 10*time.Millisecond)
	w.leave(t)
}
