package stream

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestCommitErrors(t *testing.T) {
	cluster := fake(t)
	c, ctx := client(t, cluster.ListenAddrs()), testContext(t)
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
