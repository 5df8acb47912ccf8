package stream

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// forgettable is a client of members that are made believe that they are forgotten: whoever joins in their place waits for
// them for the rebalance time-out, and no longer.
func forgettable(c *Client) *Client {
	c.cfg.RebalanceTime = time.Second
	return c
}

func TestCommitErrors(t *testing.T) {
	cluster := fake(t)
	c, ctx := forgettable(named(t, cluster.ListenAddrs(), "")), testContext(t)
	n, group := newTopic(t, c, "commit", 1), name("group")
	w := join(t, c, group, n)
	require.Eventually(t, w.holds(1), patience, 10*time.Millisecond)
	cl := w.claims()[0]
	once := func(e *kerr.Error) {
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: group, Err: e, Count: 1})
	}
	for _, e := range []*kerr.Error{kerr.IllegalGeneration, kerr.RebalanceInProgress} {
		once(e)
		require.NoError(t, cl.Commit(ctx, 1, ""), "refused for certain, and the claim survives: %s", e.Message)
	}
	for _, e := range []*kerr.Error{kerr.UnknownMemberID, kerr.FencedInstanceID} {
		once(e)
		require.ErrorIs(t, cl.Commit(ctx, 1, ""), ErrFenced, e.Message)
		old := cl
		require.ErrorIs(t, old.Commit(ctx, 1, ""), ErrFenced, "it stays so")
		require.Eventually(t, func() bool {
			cl = w.claims()[0]
			return cl != nil && cl != old
		}, patience, 10*time.Millisecond)
		require.NotEqual(t, old.Member(), cl.Member())
	}
	for _, e := range []*kerr.Error{kerr.RequestTimedOut, kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.UnknownServerError} {
		once(e)
		err := cl.Commit(ctx, 1, "")
		require.Error(t, err, e.Message)
		require.NotErrorIs(t, err, ErrFenced, e.Message)
	}
	once(kerr.CoordinatorLoadInProgress) // certainly not carried out: tried again
	require.NoError(t, cl.Commit(ctx, 1, "x"))
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.FindCoordinator}, Group: group, Err: kerr.CoordinatorNotAvailable, Count: 2})
	_ = c.forget(group, nil)
	require.NoError(t, cl.Commit(ctx, 2, "y"))
	require.ErrorIs(t, cl.Commit(ctx, 3, string(filler(40_000))), ErrPermanent)
	w.leave(t)
}

// A coordinator that is away at the start, or refuses for a while, only delays.
func TestGroupStartsLate(t *testing.T) {
	cluster := fake(t)
	c := client(t, cluster.ListenAddrs())
	n, group := newTopic(t, c, "late", 2), name("group")
	cluster.Fault(
		kfake.Fault{Keys: []kmsg.Key{kmsg.FindCoordinator}, Group: group, Err: kerr.CoordinatorNotAvailable, Count: 2},
		kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Group: group, Err: kerr.CoordinatorLoadInProgress, Count: 1},
		kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Group: group, Err: kerr.CoordinatorLoadInProgress, Count: 2},
	)
	w := join(t, c, group, n)
	require.Eventually(t, w.holds(2), patience, 10*time.Millisecond)
	w.leave(t)

	group = name("group")
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Group: group, Err: kerr.GroupAuthorizationFailed, Count: -1})
	w = join(t, c, group, n)
	require.ErrorIs(t, <-w.ended, ErrPermanent)
}

// When the coordinator no longer knows the member, the partitions are given up and claimed anew.
func TestGroupExpelled(t *testing.T) {
	cluster := fake(t)
	c := client(t, cluster.ListenAddrs())
	n, group := newTopic(t, c, "expelled", 2), name("group")
	w := join(t, c, group, n)
	require.Eventually(t, w.holds(2), patience, 10*time.Millisecond)
	old := w.claims()[0].Member()
	k := foreign(t, cluster.ListenAddrs())
	req := kmsg.NewLeaveGroupRequest()
	req.Group = group
	m := kmsg.NewLeaveGroupRequestMember()
	m.MemberID = old
	req.Members = append(req.Members, m)
	_, err := req.RequestWith(testContext(t), k)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		cl := w.claims()[0]
		return w.holds(2)() && cl != nil && cl.Member() != old
	}, patience, 10*time.Millisecond)
	w.leave(t)
}

// gate is a network that can freeze: what is written while it is frozen arrives when it thaws.
type gate struct {
	mu   sync.Mutex
	thaw chan struct{} // nil: open
}

func (g *gate) freeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.thaw = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.thaw)
	g.thaw = nil
}

func (g *gate) pass() {
	g.mu.Lock()
	thaw := g.thaw
	g.mu.Unlock()
	if thaw != nil {
		<-thaw
	}
}

func (g *gate) dial(ctx context.Context, network, address string) (net.Conn, error) {
	g.pass()
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	return gatedConn{conn, g}, err
}

type gatedConn struct {
	net.Conn
	g *gate
}

func (c gatedConn) Write(b []byte) (int, error) {
	c.g.pass()
	return c.Conn.Write(b)
}

// A static member that is frozen is like one without an instance id, whom conformance has.
func TestGroupZombie(t *testing.T) {
	cluster, g := fake(t), &gate{}
	testZombie(t, g, mortal(named(t, cluster.ListenAddrs(), "pod-0", WithDial(g.dial))), client(t, cluster.ListenAddrs()))
}

// A member that is frozen for longer than its session loses its partitions to others; when it goes on, its
// commits are refused, its owners end, and it is a member again by itself.
func testZombie(t *testing.T, g *gate, frozen, other *Client) {
	t.Helper()
	n, group := newTopic(t, frozen, "zombie", 4), name("group")
	z := join(t, frozen, group, n)
	spread(t, 4, z)
	w := join(t, other, group, n)
	spread(t, 4, z, w)
	stale, kept := z.claims(), w.claims()
	g.freeze()
	late := make(chan error, len(stale))
	for _, cl := range stale {
		go func() { late <- cl.Commit(testContext(t), 3, "of a zombie") }()
	}
	require.Eventually(t, w.holds(4), patience, 5*time.Millisecond)
	require.Equal(t, 2, untouched(t, kept, w))
	for _, cl := range w.claims() {
		require.NoError(t, cl.Commit(testContext(t), 7, "of the living"))
	}
	g.open()
	for range stale {
		require.Error(t, <-late)
	}
	spread(t, 4, z, w)
	for p, cl := range z.claims() {
		require.NotContains(t, stale, cl)
		require.Equal(t, Committed{7, "of the living"}, Committed{cl.Offset, cl.Metadata}, p)
		require.NoError(t, cl.Commit(testContext(t), 8, ""))
	}
	for _, cl := range stale {
		require.ErrorIs(t, cl.Commit(testContext(t), 3, "of a zombie"), ErrFenced)
	}
	z.leave(t)
	w.leave(t)
}

// ghosts is a network that loses the first JoinGroup, and brings it later.
type ghosts struct {
	mu   sync.Mutex
	lost []byte
	to   string
}

func (g *ghosts) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	return ghostConn{conn, g}, err
}

type ghostConn struct {
	net.Conn
	g *ghosts
}

func (c ghostConn) Write(b []byte) (int, error) {
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	if c.g.lost == nil && len(b) > 6 && kmsg.Key(binary.BigEndian.Uint16(b[4:])) == kmsg.JoinGroup { //nolint:gosec // few keys
		c.g.lost, c.g.to = bytes.Clone(b), c.RemoteAddr().String()
		return 0, errTest
	}
	return c.Conn.Write(b)
}

// A join of a static member whose answer was lost, and that reaches the coordinator after its repetition, takes the
// member's place. That is no other process: the member joins anew.
func TestGroupGhost(t *testing.T) {
	cluster, g := fake(t), &ghosts{}
	c := named(t, cluster.ListenAddrs(), "pod-0", WithDial(g.dial))
	n, group := newTopic(t, c, "ghost", 2), name("group")
	w := join(t, c, group, n)
	spread(t, 2, w)
	before := w.claims()
	conn, err := net.Dial("tcp", g.to)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	_, err = conn.Write(g.lost)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		now := w.claims()
		return len(now) == 2 && now[0] != before[0] && now[0].Commit(testContext(t), 1, "") == nil
	}, patience, 5*time.Millisecond)
	require.ErrorIs(t, before[0].Commit(testContext(t), 1, ""), ErrFenced)
	w.leave(t)
}

// While the coordinator is away for less than a session nothing happens to the owners; when it is longer,
// their contexts end, and they begin anew when it is back.
func TestGroupCoordinatorAway(t *testing.T) {
	cluster := fake(t)
	c := named(t, cluster.ListenAddrs(), "")
	n, group := newTopic(t, c, "away", 2), name("group")
	w := join(t, c, group, n)
	spread(t, 2, w)
	before := w.claims()
	h := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: group, Err: kerr.NotCoordinator, Count: 4})
	require.NoError(t, h.Wait(testContext(t), 4))
	require.Equal(t, 2, untouched(t, before, w))
	w.leave(t)

	w = join(t, mortal(named(t, cluster.ListenAddrs(), "")), group, n)
	spread(t, 2, w)
	before = w.claims()
	away := cluster.Fault(
		kfake.Fault{Keys: []kmsg.Key{kmsg.FindCoordinator}, Group: group, Err: kerr.CoordinatorNotAvailable, Count: -1},
		kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: group, Err: kerr.NotCoordinator, Count: -1},
	)
	require.Eventually(t, w.holds(0), patience, 5*time.Millisecond)
	away.Remove()
	spread(t, 2, w)
	for _, cl := range before {
		require.ErrorIs(t, cl.Commit(testContext(t), 1, ""), ErrFenced)
	}
	for _, cl := range w.claims() {
		require.NoError(t, cl.Commit(testContext(t), 1, ""))
	}
	w.leave(t)
}

// The coordinator moves from broker to broker under two members; at most the members join again.
func TestGroupCoordinatorMoves(t *testing.T) {
	cluster := fake(t, kfake.NumBrokers(3))
	c := named(t, cluster.ListenAddrs(), "")
	n, group := newTopic(t, c, "moves", 4), name("group")
	a, b := join(t, c, group, n), join(t, named(t, cluster.ListenAddrs(), ""), group, n)
	spread(t, 4, a, b)
	for range 3 {
		from := cluster.CoordinatorFor(group)
		for cluster.CoordinatorFor(group) == from {
			cluster.RehashCoordinators()
		}
		require.Eventually(t, func() bool {
			ok := 0
			for _, w := range []*crew{a, b} {
				for _, cl := range w.claims() {
					if cl.Commit(testContext(t), 1, "") == nil {
						ok++
					}
				}
			}
			return ok == 4
		}, patience, 5*time.Millisecond)
	}
	a.leave(t)
	b.leave(t)
}

// Answers that are lost, in any phase of joining, only delay; what is refused for good ends it.
func TestGroupAnswersLost(t *testing.T) {
	cluster := fake(t)
	c := forgettable(named(t, cluster.ListenAddrs(), ""))
	n, group := newTopic(t, c, "lost", 2), name("group")
	for _, key := range []kmsg.Key{kmsg.JoinGroup, kmsg.SyncGroup, kmsg.OffsetFetch} {
		for _, e := range []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.RebalanceInProgress} {
			if key == kmsg.OffsetFetch && e == kerr.RebalanceInProgress {
				continue
			}
			cluster.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Group: group, Err: e, Count: 2})
			w := join(t, c, group, n)
			spread(t, 2, w)
			w.leave(t)
		}
	}
	for _, e := range []*kerr.Error{kerr.UnknownMemberID, kerr.IllegalGeneration} {
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.SyncGroup}, Group: group, Err: e})
		w := join(t, c, group, n)
		var before map[int]*Claim
		require.Eventually(t, func() bool { before = w.claims(); return len(before) == 2 }, patience, 5*time.Millisecond)
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: group, Err: e})
		require.Eventually(t, func() bool {
			now := w.claims()
			return len(now) == 2 && (now[0].Member() != before[0].Member() || e == kerr.IllegalGeneration)
		}, patience, 5*time.Millisecond)
		w.leave(t)
	}
	w := join(t, c, group, n)
	spread(t, 2, w)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: group, Err: kerr.GroupAuthorizationFailed, Count: -1})
	require.ErrorIs(t, <-w.ended, ErrPermanent)

	other := name("group")
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Group: other, Err: kerr.InconsistentGroupProtocol, Count: -1})
	w = join(t, c, other, n)
	require.ErrorIs(t, <-w.ended, ErrPermanent)
}
