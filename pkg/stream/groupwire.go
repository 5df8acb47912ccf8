package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

const (
	// protocolType is what all of Kafka's consumer groups say, so that Kafka's tools can describe ours.
	protocolType = "consumer"
	// stickyProtocol is this package's own: members keep what they have through a rebalance (KIP-429), and the
	// leader assigns by assign. The name is our own because so is what assignments carry with them.
	stickyProtocol = "cooperative-weft"
	// eagerProtocol is what members from before stickyProtocol speak: all give up everything at each rebalance.
	// It is offered too, so that a group can be upgraded member by member; it is taken while one of those
	// is in the group.
	eagerProtocol = "range"
	// Versions of what members tell each other (Kafka's ConsumerProtocol): 0 has topics and user data, 2 also what
	// is owned, and since which generation (KIP-792).
	eagerVersion, stickyVersion = 0, 2
	// noteVersion begins the user data of an assignment.
	noteVersion = 1
	// noGeneration is that of a member that has none.
	noGeneration = -1
)

// identity is as whom a member speaks to the coordinator.
type identity struct {
	group, member, instance string
	generation              int32
}

// joinRequest and joinAnswer are what JoinGroup is about here.
type joinRequest struct {
	session, rebalance time.Duration
	topics             []string
	owned              []place
	since              int32 // generation of owned
	nonce              int32 // not 0: asks for a new generation although nothing else differs from the last join
}

type joinAnswer struct {
	generation int32
	protocol   string
	member     string
	leads      bool
	members    []candidate // of the leader only
}

// joinGroup waits until all members have joined, which takes up to req.rebalance. On MemberIDRequired the
// answer has the id to join with.
func (c *Client) joinGroup(ctx context.Context, who identity, req *joinRequest) (joinAnswer, error) {
	var w writer
	w.str(who.group)
	w.int32(millis(req.session))
	w.int32(millis(req.rebalance))
	w.str(who.member)
	w.nullStr(who.instance)
	w.str(protocolType)
	w.array(2)
	w.str(stickyProtocol)
	w.blob(encodeSubscription(req))
	w.str(eagerProtocol)
	w.blob(encodeEagerSubscription(req))
	var a joinAnswer
	r, err := c.doGroup(ctx, req.rebalance+requestTimeout, who.group, protocol.JoinGroup, 5, w.b)
	if err != nil {
		return a, err
	}
	r.int32() // throttle
	code := r.int16()
	a.generation, a.protocol = r.int32(), r.str()
	leader := r.str()
	a.member = r.str()
	a.leads = a.member == leader
	for range r.array(8) {
		m := candidate{id: r.str(), instance: r.str(), generation: noGeneration}
		m.read(r.blob())
		a.members = append(a.members, m)
	}
	if r.err != nil {
		return a, r.err
	}
	return a, c.groupError(who.group, code)
}

// syncGroup hands in the leader's assignments, and waits for the member's own.
func (c *Client) syncGroup(ctx context.Context, wait time.Duration, who identity, assignments map[string][]byte) ([]byte, error) {
	var w writer
	w.str(who.group)
	w.int32(who.generation)
	w.str(who.member)
	w.nullStr(who.instance)
	w.array(len(assignments))
	for _, id := range slices.Sorted(maps.Keys(assignments)) {
		w.str(id)
		w.blob(assignments[id])
	}
	r, err := c.doGroup(ctx, wait, who.group, protocol.SyncGroup, 3, w.b)
	if err != nil {
		return nil, err
	}
	r.int32() // throttle
	code := r.int16()
	assignment := r.blob()
	if r.err != nil {
		return nil, r.err
	}
	return assignment, c.groupError(who.group, code)
}

func (c *Client) heartbeat(ctx context.Context, wait time.Duration, who identity) error {
	var w writer
	w.str(who.group)
	w.int32(who.generation)
	w.str(who.member)
	w.nullStr(who.instance)
	r, err := c.doGroup(ctx, wait, who.group, protocol.Heartbeat, 3, w.b)
	if err != nil {
		return err
	}
	r.int32() // throttle
	code := r.int16()
	if r.err != nil {
		return r.err
	}
	return c.groupError(who.group, code)
}

func (c *Client) leaveGroup(ctx context.Context, who identity) error {
	var w writer
	w.str(who.group)
	w.array(1)
	w.str(who.member)
	w.nullStr(who.instance)
	r, err := c.doGroup(ctx, requestTimeout, who.group, protocol.LeaveGroup, 3, w.b)
	if err != nil {
		return err
	}
	r.int32() // throttle
	code := r.int16()
	for range r.array(6) {
		r.str()
		r.str()
		if own := r.int16(); code == 0 {
			code = own
		}
	}
	if r.err != nil {
		return r.err
	}
	if kafka.Error(code) == kafka.UnknownMemberId {
		return nil // it is out already
	}
	return c.groupError(who.group, code)
}

// groupError makes an error of a code; the coordinator is looked up anew if it is another, or away.
func (c *Client) groupError(group string, code int16) error {
	switch err := codeError(code); kafka.Error(code) {
	case kafka.NotCoordinatorForGroup, kafka.GroupCoordinatorNotAvailable, kafka.RequestTimedOut:
		return c.forget(group, err)
	default:
		return err
	}
}

func millis(d time.Duration) int32 { return i32(int(d.Milliseconds())) }

// blob writes bytes with their length in front; nil as null.
func (w *writer) blob(b []byte) {
	if b == nil {
		w.int32(-1)
		return
	}
	w.array(len(b))
	w.b = append(w.b, b...)
}

// blob reads bytes; null is nil. They alias the answer.
func (r *reader) blob() []byte {
	n := r.int32()
	if n < 0 {
		return nil
	}
	return r.take(int(n))
}

func (w *writer) topics(names []string) {
	w.array(len(names))
	for _, n := range names {
		w.str(n)
	}
}

// places writes partitions grouped by topic.
func (w *writer) places(all []place) {
	all = slices.SortedFunc(slices.Values(all), place.compare)
	topics := 0
	for i, p := range all {
		if i == 0 || all[i-1].topic != p.topic {
			topics++
		}
	}
	w.array(topics)
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].topic == all[0].topic {
			n++
		}
		w.str(all[0].topic)
		w.array(n)
		for _, p := range all[:n] {
			w.int32(i32(p.partition))
		}
		all = all[n:]
	}
}

func (r *reader) places() []place {
	var all []place
	for range r.array(6) {
		t := r.str()
		for range r.array(4) {
			all = append(all, place{t, int(r.int32())})
		}
	}
	return all
}

func encodeSubscription(req *joinRequest) []byte {
	var w writer
	w.int16(stickyVersion)
	w.topics(req.topics)
	var note writer
	if req.nonce != 0 {
		note.int32(req.nonce)
	}
	w.blob(note.b)
	w.places(req.owned)
	w.int32(req.since)
	return w.b
}

// encodeEagerSubscription has nothing behind the user data: the older members refuse what they do not know.
func encodeEagerSubscription(req *joinRequest) []byte {
	var w writer
	w.int16(eagerVersion)
	w.topics(req.topics)
	w.blob([]byte{})
	return w.b
}

// read takes a subscription of any version and leaves out what this package does not use. One that is cut
// short has what could be read: whoever sent it gets fewer partitions, and nobody else is held up.
func (m *candidate) read(b []byte) {
	r := reader{b: b}
	r.int16() // version: fields were only ever added at the end
	for range r.array(2) {
		if t := r.str(); r.err == nil {
			m.topics = append(m.topics, t)
		}
	}
	r.blob() // user data
	if owned := r.places(); r.err == nil {
		m.owned = owned
	}
	if generation := r.int32(); r.err == nil {
		m.generation = generation
	}
}

// assignment is what a leader tells a member: its share, and of how many partitions of each topic it knew,
// so that everybody can tell when there are more.
type assignment struct {
	share
	counts map[string]int // nil: the leader speaks eagerProtocol only
	more   bool           // some member owes something: another generation will follow soon
}

func (a *assignment) encode() []byte {
	var note writer
	note.int8(noteVersion)
	note.array(len(a.counts))
	for _, t := range slices.Sorted(maps.Keys(a.counts)) {
		note.str(t)
		note.int32(i32(a.counts[t]))
	}
	note.places(a.owed)
	if a.more {
		note.int8(1)
	}
	var w writer
	w.int16(eagerVersion)
	w.places(a.assigned)
	w.blob(note.b)
	return w.b
}

var errAssignment = errors.New("assignment from the group's leader cannot be read")

func decodeAssignment(b []byte) (assignment, error) {
	var a assignment
	if len(b) == 0 {
		return a, nil // what the coordinator has for a member that the leader left out
	}
	r := reader{b: b}
	r.int16() // version
	a.assigned = r.places()
	note := reader{b: r.blob()}
	if r.err != nil {
		return a, fmt.Errorf("%w: %w", errAssignment, r.err)
	}
	if len(note.b) == 0 || note.int8() != noteVersion {
		return a, nil
	}
	a.counts = map[string]int{}
	for range note.array(6) {
		t := note.str()
		a.counts[t] = int(note.int32())
	}
	a.owed = note.places()
	a.more = len(note.b) > 0
	if note.err != nil {
		return a, fmt.Errorf("%w: %w", errAssignment, note.err)
	}
	return a, nil
}
