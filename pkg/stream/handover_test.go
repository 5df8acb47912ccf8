package stream

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/weft-cdp/weft/pkg/config"
)

// handoverConformance is what only our own membership does: partitions that stay are not touched, and static
// members come back to what they had.
func handoverConformance(t *testing.T, brokers []string) {
	for name, test := range map[string]func(t *testing.T, brokers []string){
		"untouched":           testUntouched,
		"in order":            testInOrder,
		"owner never returns": testOwnerNeverReturns,
		"rest":                testRest,
		"killed":              testKilled,
		"zombie": func(t *testing.T, brokers []string) {
			g := &gate{}
			testZombie(t, g, mortal(named(t, brokers, "", WithDial(g.dial))), client(t, brokers))
		},
		"static restart":          testStaticRestart,
		"static leave":            testStaticLeave,
		"static rejoin":           testStaticRejoin,
		"instance id twice":       testInstanceTwice,
		"instance id of the dead": testInstanceOfTheDead,
		"growth":                  testGrowth,
		"more members":            testMoreMembers,
		"rolling upgrade":         testRollingUpgrade,
	} {
		t.Run(name, func(t *testing.T) { test(t, brokers) })
	}
}

// named is a client of a process with an instance id.
func named(t testing.TB, brokers []string, instance string, opts ...Option) *Client {
	t.Helper()
	c, err := New(config.Kafka{
		Brokers: brokers, ClientID: "weft-test", InstanceID: instance, SessionTimeout: longSession, RebalanceTime: longSession,
	}, zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel)), opts...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// mortal makes the members of a client that joins from here on lose their session soon, once they are silent.
func mortal(c *Client) *Client {
	c.cfg.SessionTimeout, c.cfg.RebalanceTime = shortSession, shortSession
	return c
}

// spread waits until the crews hold n partitions together, none of them more than one above another.
func spread(t testing.TB, n int, crews ...*crew) {
	t.Helper()
	require.Eventually(t, func() bool {
		total := 0
		for _, w := range crews {
			had := len(w.claims())
			if had < n/len(crews) || had > (n+len(crews)-1)/len(crews) {
				return false
			}
			total += had
		}
		return total == n
	}, patience, 5*time.Millisecond)
}

// untouched checks that what a crew holds and held before is the same claim, goes on and commits.
func untouched(t testing.TB, before map[int]*Claim, w *crew) (kept int) {
	t.Helper()
	for p, cl := range w.claims() {
		if before[p] == nil {
			continue
		}
		require.Same(t, before[p], cl, "partition %d was begun anew", p)
		require.NoError(t, cl.ctx.Err())
		require.NoError(t, cl.Commit(testContext(t), int64(p), "kept"))
		kept++
	}
	return kept
}

func testUntouched(t *testing.T, brokers []string) {
	c := client(t, brokers)
	n, group := newTopic(t, c, "untouched", 6), name("group")
	a := join(t, c, group, n)
	spread(t, 6, a)
	began := a.claims()

	// It commits all the time, and no commit is refused or lost while the group changes around it.
	ctx, stop := context.WithCancel(testContext(t))
	var committing sync.WaitGroup
	for p, cl := range began {
		committing.Go(func() {
			for i := int64(1); cl.ctx.Err() == nil && ctx.Err() == nil; i++ {
				if err := cl.Commit(cl.ctx, i, "going on"); err != nil && cl.ctx.Err() == nil && ctx.Err() == nil {
					t.Errorf("partition %d: %v", p, err)
				}
			}
		})
	}
	before := a.claims()
	b := join(t, client(t, brokers), group, n)
	spread(t, 6, a, b)
	require.Equal(t, 3, untouched(t, before, a))
	d := join(t, client(t, brokers), group, n)
	spread(t, 6, a, b, d)
	before = a.claims()
	require.Equal(t, 2, untouched(t, began, a))
	d.leave(t)
	spread(t, 6, a, b)
	require.Equal(t, 2, untouched(t, before, a))
	b.leave(t)
	spread(t, 6, a)
	stop()
	committing.Wait()
	require.Equal(t, 2, untouched(t, before, a))
	a.leave(t)
	for _, cl := range before {
		require.ErrorIs(t, cl.Commit(testContext(t), 9, ""), ErrFenced)
	}
}

// A partition that moves is another's only when its owner has returned, which may commit until then.
func testInOrder(t *testing.T, brokers []string) {
	c := client(t, brokers)
	n, group := newTopic(t, c, "in-order", 2), name("group")
	ctx, stop := context.WithCancel(testContext(t))
	began, asked, finish := make(chan struct{}, 2), make(chan *Claim, 2), make(chan struct{})
	ended := make(chan error, 1)
	var last error
	go func() {
		ended <- c.RunGroup(ctx, GroupOptions{Group: group, Topics: []string{n}}, func(ctx context.Context, cl *Claim) error {
			began <- struct{}{}
			<-ctx.Done()
			asked <- cl
			<-finish
			last = cl.Commit(testContext(t), 42, "last words")
			return nil
		})
	}()
	<-began // an owner that has not begun is not asked to end
	<-began
	b := join(t, client(t, brokers), group, n)
	moved := <-asked
	awaitMembers(t, brokers, group, 2)
	require.Empty(t, b.claims(), "its owner has not returned")
	close(finish)
	require.Eventually(t, b.holds(1), patience, 5*time.Millisecond)
	require.NoError(t, last)
	cl := b.claims()[moved.Partition]
	require.NotNil(t, cl)
	require.Equal(t, int64(42), cl.Offset)
	require.Equal(t, "last words", cl.Metadata)
	require.ErrorIs(t, moved.Commit(testContext(t), 1, "stale"), ErrFenced)
	stop()
	require.NoError(t, <-ended)
	b.leave(t)
}

// awaitMembers waits until a group with so many members is at rest, and returns who they are.
func awaitMembers(t testing.TB, brokers []string, group string, members int) (who []kmsg.DescribeGroupsResponseGroupMember) {
	t.Helper()
	ctx, k := testContext(t), foreign(t, brokers)
	req := kmsg.NewDescribeGroupsRequest()
	req.Groups = []string{group}
	require.Eventually(t, func() bool {
		res, err := req.RequestWith(ctx, k)
		if err != nil || len(res.Groups) != 1 || res.Groups[0].State != "Stable" { // a coordinator may just be loading the group
			return false
		}
		who = res.Groups[0].Members
		return len(who) == members
	}, patience, 5*time.Millisecond)
	return who
}

// An owner that does not return holds its partition up for the rebalance time-out and no longer, and then
// it commits no more; another claim of it here waits.
func testOwnerNeverReturns(t *testing.T, brokers []string) {
	c := client(t, brokers)
	c.cfg.RebalanceTime = 500 * time.Millisecond
	n, group := newTopic(t, c, "never-returns", 2), name("group")
	ctx, stop := context.WithCancel(testContext(t))
	release := make(chan struct{})
	var mu sync.Mutex
	running, most, ran := map[int]int{}, 0, map[int][]*Claim{}
	ended := make(chan error, 1)
	go func() {
		ended <- c.RunGroup(ctx, GroupOptions{Group: group, Topics: []string{n}}, func(ctx context.Context, cl *Claim) error {
			mu.Lock()
			running[cl.Partition]++
			most = max(most, running[cl.Partition])
			ran[cl.Partition] = append(ran[cl.Partition], cl)
			first := len(ran[cl.Partition]) == 1
			mu.Unlock()
			<-ctx.Done()
			if first {
				<-release
			}
			mu.Lock()
			running[cl.Partition]--
			mu.Unlock()
			return nil
		})
	}()
	held := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(ran)
	}
	require.Eventually(t, func() bool { return held() == 2 }, patience, 5*time.Millisecond)
	b := join(t, client(t, brokers), group, n)
	require.Eventually(t, b.holds(1), patience, 5*time.Millisecond)
	for p := range b.claims() {
		mu.Lock()
		stuck := ran[p][0]
		mu.Unlock()
		require.ErrorIs(t, stuck.Commit(testContext(t), 1, ""), ErrFenced)
	}
	b.leave(t) // what moved comes back, while its first owner here is still running
	awaitMembers(t, brokers, group, 1)
	close(release)
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(ran[0])+len(ran[1]) >= 3
	}, patience, 5*time.Millisecond)
	stop()
	require.NoError(t, <-ended)
	require.Equal(t, 1, most, "two owners of one partition at the same time")
}

// A partition whose owner returned nil rests until the next generation.
func testRest(t *testing.T, brokers []string) {
	c := client(t, brokers)
	n, group := newTopic(t, c, "rest", 2), name("group")
	ctx, stop := context.WithCancel(testContext(t))
	calls := make(chan int, 10)
	ended := make(chan error, 1)
	joined := make(chan int, 10)
	opt := GroupOptions{Group: group, Topics: []string{n}, Joined: func(partitions int) { joined <- partitions }}
	go func() {
		ended <- c.RunGroup(ctx, opt, func(ctx context.Context, cl *Claim) error {
			calls <- cl.Partition
			if cl.Partition == 1 {
				<-ctx.Done()
			}
			return nil
		})
	}()
	require.Equal(t, 2, <-joined)
	require.Equal(t, 1, <-calls+<-calls)
	b := join(t, client(t, brokers), group, n)
	spread(t, 1, b)
	b.leave(t)
	seen := map[int]bool{}
	for !seen[0] {
		seen[<-calls] = true
	}
	stop()
	require.NoError(t, <-ended)
}

// testKilled closes the connections of a member without leaving: its partitions are back a session time-out
// later, and nobody else's are touched.
func testKilled(t *testing.T, brokers []string) {
	victim := mortal(client(t, brokers))
	n, group := newTopic(t, victim, "killed", 6), name("group")
	a := join(t, client(t, brokers), group, n)
	spread(t, 6, a)
	v := join(t, victim, group, n)
	spread(t, 6, a, v)
	reg := prometheus.NewRegistry()
	watched := named(t, brokers, "", WithMetrics(reg))
	b := join(t, watched, group, n)
	spread(t, 6, a, b, v)
	stale := v.claims()
	beforeA, beforeB := a.claims(), b.claims()
	victim.Close()
	began := time.Now()
	spread(t, 6, a, b)
	t.Logf("partitions of a killed member were back after %s, session time-out %s", time.Since(began).Round(time.Millisecond), shortSession)
	require.Equal(t, 2, untouched(t, beforeA, a))
	require.Equal(t, 2, untouched(t, beforeB, b))
	for _, cl := range stale {
		require.Error(t, cl.Commit(testContext(t), 1, ""))
	}
	require.Error(t, <-v.ended)
	families, err := reg.Gather()
	require.NoError(t, err)
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			got[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	require.InDelta(t, 3, got["weft_stream_group_partitions"], 0)
	require.Positive(t, got["weft_stream_group_generation"])
	require.Positive(t, got["weft_stream_group_rebalances_total"])
	require.Zero(t, got["weft_stream_group_lost_seconds_total"])
	a.leave(t)
	b.leave(t)
}
