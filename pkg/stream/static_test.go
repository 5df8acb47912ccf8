package stream

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A static member that ends as planned and is back within the session time-out finds its partitions as it
// left them, and the others keep theirs.
func testStaticRestart(t *testing.T, brokers []string) { restartStatic(t, brokers) }

// restartStatic returns the generations of the group before and after. Apache Kafka makes none for it; kfake
// does, if what the member says differs in any byte from what it said when it joined last.
func restartStatic(t *testing.T, brokers []string) (before, after int32) {
	t.Helper()
	group := name("group")
	n := newTopic(t, client(t, brokers), "static", 6)
	a := join(t, named(t, brokers, "pod-0"), group, n)
	spread(t, 6, a)
	b := join(t, named(t, brokers, "pod-1"), group, n)
	spread(t, 6, a, b)
	d := join(t, named(t, brokers, "pod-2"), group, n)
	spread(t, 6, a, b, d)
	at := restful(t, brokers, group, 3)
	beforeA, beforeB, old := a.claims(), b.claims(), d.claims()
	for p, cl := range old {
		require.NoError(t, cl.Commit(testContext(t), int64(p)+10, "before the restart"))
	}
	d.leave(t)
	d = join(t, named(t, brokers, "pod-2"), group, n)
	spread(t, 6, a, b, d)
	require.Equal(t, 2, untouched(t, beforeA, a))
	require.Equal(t, 2, untouched(t, beforeB, b))
	for p, cl := range d.claims() {
		require.Contains(t, old, p)
		require.Equal(t, int64(p)+10, cl.Offset)
		require.NotEqual(t, old[p].Member(), cl.Member())
		after = cl.Generation()
		require.NoError(t, cl.Commit(testContext(t), int64(p)+11, ""))
		require.ErrorIs(t, old[p].Commit(testContext(t), 1, ""), ErrFenced)
	}
	a.leave(t)
	b.leave(t)
	d.leave(t)
	return at, after
}

// restful waits until a group with so many members is at rest, and returns its generation.
func restful(t testing.TB, brokers []string, group string, members int) int32 {
	t.Helper()
	return generationOf(t, brokers, group, awaitMembers(t, brokers, group, members)[0])
}

// A static member that stops because it can not go on leaves: others have its partitions at once.
func testStaticLeave(t *testing.T, brokers []string) {
	group := name("group")
	c := named(t, brokers, "pod-0")
	n := newTopic(t, c, "static-leave", 2)
	fault := make(chan error, 2)
	ended := make(chan error, 1)
	go func() {
		ended <- c.RunGroup(testContext(t), GroupOptions{Group: group, Topics: []string{n}}, func(ctx context.Context, _ *Claim) error {
			select {
			case err := <-fault:
				return err
			case <-ctx.Done():
				return nil
			}
		})
	}()
	b := join(t, named(t, brokers, "pod-1"), group, n)
	spread(t, 1, b)
	before := b.claims()
	began := time.Now()
	fault <- fmt.Errorf("%w: %w", ErrStop, errTest)
	require.ErrorIs(t, <-ended, ErrStop)
	spread(t, 2, b)
	require.Less(t, time.Since(began), longSession, "it left")
	require.Equal(t, 1, untouched(t, before, b))
	b.leave(t)
}

// ErrRejoin makes a new member of a static one too, whose predecessor's commits are refused, and that moves
// nothing.
func testStaticRejoin(t *testing.T, brokers []string) {
	group := name("group")
	c := named(t, brokers, "pod-0")
	n := newTopic(t, c, "static-rejoin", 2)
	ctx, stop := context.WithCancel(testContext(t))
	claims := make(chan *Claim, 10)
	again := make(chan error, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- c.RunGroup(ctx, GroupOptions{Group: group, Topics: []string{n}}, func(ctx context.Context, cl *Claim) error {
			claims <- cl
			select {
			case err := <-again:
				return err
			case <-ctx.Done():
				return nil
			}
		})
	}()
	first := <-claims
	<-claims
	again <- ErrRejoin
	second := <-claims
	third := <-claims
	require.NotEqual(t, first.Member(), second.Member())
	require.Equal(t, second.Member(), third.Member())
	_, err := first.commitOnce(testContext(t), first.began, 1, "late")
	require.True(t, fenced(err), "a commit of before, on its way until now, gives %v", err)
	require.NoError(t, second.Commit(testContext(t), 2, "new"))
	stop()
	require.NoError(t, <-ended)
}

// Two processes with one instance id: the first stops, and its error names the key.
func testInstanceTwice(t *testing.T, brokers []string) {
	group := name("group")
	n := newTopic(t, client(t, brokers), "twice", 2)
	first := join(t, named(t, brokers, "pod-0"), group, n)
	spread(t, 2, first)
	stale := first.claims()
	second := join(t, named(t, brokers, "pod-0"), group, n)
	err := <-first.ended
	require.ErrorIs(t, err, ErrPermanent)
	require.ErrorContains(t, err, `kafka.instance_id`)
	require.ErrorContains(t, err, `"pod-0"`)
	spread(t, 2, second)
	for p, cl := range second.claims() {
		require.NoError(t, cl.Commit(testContext(t), 1, ""))
		require.ErrorIs(t, stale[p].Commit(testContext(t), 1, ""), ErrFenced)
	}
	second.leave(t)
}

// A process is killed while it joins, and its request reaches the coordinator behind that of its successor: the
// successor takes its place again.
func testInstanceOfTheDead(t *testing.T, brokers []string) {
	group := name("group")
	n := newTopic(t, client(t, brokers), "dead", 2)
	w := join(t, named(t, brokers, "pod-0"), group, n)
	spread(t, 2, w)
	stale := w.claims()
	dead := named(t, brokers, "")
	late := joinRequest{session: longSession, rebalance: longSession, topics: []string{n}, since: noGeneration}
	_, err := dead.joinGroup(testContext(t), identity{group: group, instance: "pod-0", generation: noGeneration}, &late)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		mine := w.claims()
		return len(mine) == 2 && mine[0] != stale[0] && mine[1] != stale[1]
	}, patience, 10*time.Millisecond)
	for p, cl := range w.claims() {
		require.NoError(t, cl.Commit(testContext(t), 1, ""))
		require.ErrorIs(t, stale[p].Commit(testContext(t), 1, ""), ErrFenced)
	}
	w.leave(t)
}

// generationOf asks Kafka for the generation of a group, by the members' own view of it: a commit of the wrong one
// is refused.
func generationOf(t testing.TB, brokers []string, group string, member kmsg.DescribeGroupsResponseGroupMember) int32 {
	t.Helper()
	who := identity{group: group, member: member.MemberID}
	if id := member.InstanceID; id != nil {
		who.instance = *id
	}
	c := client(t, brokers)
	for who.generation = 1; who.generation < 1000; who.generation++ {
		if c.heartbeat(testContext(t), patience, who) == nil {
			return who.generation
		}
	}
	t.Fatal("no generation found")
	return 0
}

func testGrowth(t *testing.T, brokers []string) {
	group := name("group")
	c1, c2 := client(t, brokers), client(t, brokers)
	c1.watchEvery, c2.watchEvery = 200*time.Millisecond, 200*time.Millisecond
	n := newTopic(t, c1, "growth", 2)
	a, b := join(t, c1, group, n), join(t, c2, group, n)
	spread(t, 2, a, b)
	beforeA, beforeB := a.claims(), b.claims()
	req := kmsg.NewCreatePartitionsRequest()
	top := kmsg.NewCreatePartitionsRequestTopic()
	top.Topic, top.Count = n, 5
	req.Topics, req.TimeoutMillis = append(req.Topics, top), 5_000
	_, err := req.RequestWith(testContext(t), foreign(t, brokers))
	require.NoError(t, err)
	spread(t, 5, a, b)
	require.Equal(t, 2, untouched(t, beforeA, a)+untouched(t, beforeB, b))
	a.leave(t)
	b.leave(t)
}

// A member that others leave nothing for hears so.
func testMoreMembers(t *testing.T, brokers []string) {
	group := name("group")
	c := client(t, brokers)
	n := newTopic(t, c, "more-members", 1)
	a := join(t, c, group, n)
	spread(t, 1, a)
	joined := make(chan int, 10)
	opt := GroupOptions{Group: group, Topics: []string{n}, Joined: func(partitions int) { joined <- partitions }}
	b := joinAs(t, (*Client).RunGroup, client(t, brokers), opt)
	require.Zero(t, <-joined)
	a.leave(t)
	for <-joined == 0 {
	}
	spread(t, 1, b)
	b.leave(t)
}

// Members of before, which are kafka-go's, and ours share a group while it is upgraded one by one, and rolled back.
func testRollingUpgrade(t *testing.T, brokers []string) {
	group := name("group")
	n := newTopic(t, client(t, brokers), "upgrade", 6)
	opt := GroupOptions{Group: group, Topics: []string{n}}
	old1 := joinAs(t, runReference, client(t, brokers), opt)
	spread(t, 6, old1)
	old2 := joinAs(t, runReference, client(t, brokers), opt)
	spread(t, 6, old1, old2)
	for p, cl := range old2.claims() {
		require.NoError(t, cl.Commit(testContext(t), int64(p)+1, "of before"))
	}
	old1.leave(t)
	new1 := join(t, client(t, brokers), group, n)
	spread(t, 6, old2, new1)
	old2.leave(t)
	spread(t, 6, new1)
	new2 := join(t, client(t, brokers), group, n)
	spread(t, 6, new1, new2)
	before1, before2 := new1.claims(), new2.claims()
	new3 := join(t, client(t, brokers), group, n)
	spread(t, 6, new1, new2, new3)
	require.Equal(t, 4, untouched(t, before1, new1)+untouched(t, before2, new2), "all speak the new protocol now")

	before1 = new1.claims()
	new3.leave(t)
	back := joinAs(t, runReference, client(t, brokers), opt) // and back
	spread(t, 6, new1, new2, back)
	for p, cl := range before1 {
		if new1.claims()[p] != cl {
			require.ErrorIs(t, cl.Commit(testContext(t), 1, "stale"), ErrFenced)
		}
	}
	for _, w := range []*crew{new1, new2, back} {
		for p, cl := range w.claims() {
			require.NoError(t, cl.Commit(testContext(t), int64(p)+2, ""))
		}
	}
	new1.leave(t)
	new2.leave(t)
	spread(t, 6, back)
	back.leave(t)
}
