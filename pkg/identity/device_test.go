package identity

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/event"
)

// tablet is records of one shop, resolved one after another, with what they cost.
type tablet struct {
	t        *testing.T
	rules    *Rules
	store    *memory
	resolver *Resolver
	n        int
	states   []NodeState
}

func newTablet(t *testing.T, change func(*Devices)) *tablet {
	t.Helper()
	rules, st := newTestRules(t, Options{}), newMemory()
	d := rules.Devices()
	if change != nil {
		change(d)
	}
	return &tablet{t: t, rules: rules, store: st, resolver: NewResolver(st, 100, Policy{TypeOf: rules.TypeOf, Devices: d})}
}

// at resolves a record of the given minute; it publishes what comes with it.
func (x *tablet) at(minute float64, logOut bool, ids ...Identifier) Result {
	x.t.Helper()
	x.n++
	q := request(fmt.Sprint(x.n), ids...)
	q.Trusted, q.LogOut = true, logOut
	q.At = simEpoch.Add(time.Duration(minute * float64(time.Minute)))
	q.Cause.Time = simEpoch.Add(24 * time.Hour)
	got, err := x.resolver.Resolve(x.t.Context(), []Request{q})
	require.NoError(x.t, err)
	require.NoError(x.t, x.resolver.Confirm(x.t.Context(), losers(x.t, got)))
	require.NoError(x.t, x.resolver.Told(x.t.Context(), got[0].States))
	x.states = append(x.states, got[0].States...)
	return got[0]
}

func (x *tablet) id(typ, value string) Identifier { return identify(x.t, typ, value) }

func TestASharedDevice(t *testing.T) {
	x := newTablet(t, nil)
	ann, ben, dev := x.id(event.UserID, "ann"), x.id(event.UserID, "ben"), x.id(event.AnonymousID, "tablet")
	require.Equal(t, ann.Node, x.at(0, false, ann, dev).Profile)
	require.Equal(t, ann.Node, x.at(1, false, dev).Profile)
	got := x.at(2, false, ben, dev)
	require.Equal(t, ben.Node, got.Profile)
	require.Equal(t, []SetAside{{dev, ReasonSharedDevice}}, got.SetAside)
	require.Len(t, got.States, 1)
	require.Equal(t, simEpoch.Add(2*time.Minute), *got.States[0].Shared)

	bens := x.at(3, false, dev)
	require.Equal(t, []SetAside{{dev, ReasonSharedDevice}}, bens.SetAside)
	require.Empty(t, bens.States, "published before")
	require.Equal(t, TypeDeviceSlice, x.rules.TypeOf(bens.Profile).Name)
	require.Equal(t, bens.Profile, x.at(20, false, dev).Profile, "one slice")
	require.Equal(t, bens.Profile, x.at(45, false, dev).Profile, "something was heard every half hour")
	x.at(46, false, ben, x.id(event.Email, "ben@x.pl"), dev)
	require.Equal(t, bens.Profile, x.at(47, false, dev).Profile, "the same person goes on")

	anns := x.at(50, false, ann, dev)
	require.Equal(t, ann.Node, anns.Profile, "her user id says who she is")
	slice := x.at(51, false, dev).Profile
	require.NotEqual(t, bens.Profile, slice, "another log-in begins another slice")
	require.Equal(t, slice, x.at(52, true, dev).Profile, "the log-out ends the slice that it is in")
	after := x.at(53, false, dev).Profile
	require.NotEqual(t, slice, after)
	require.Equal(t, slice, x.at(51.5, false, dev).Profile, "late: what happened before the log-out")
	long := x.at(1, false, dev).Profile
	require.NotContains(t, []Node{bens.Profile, slice, after, ann.Node}, long, "too late to say: a slice of its own")
	require.Equal(t, long, x.at(1.2, false, dev).Profile)
	require.Equal(t, after, x.at(54, false, dev).Profile, "and nothing has changed")
	quiet := x.at(54+31, false, dev).Profile
	require.NotContains(t, []Node{bens.Profile, slice, after, long}, quiet, "nothing was heard for half an hour")

	other := x.id(event.AnonymousID, "her own")
	require.Equal(t, ben.Node, x.at(90, false, other, ben, dev).Profile)
	require.Equal(t, ben.Node, x.at(91, false, other, dev).Profile, "the other device is one person's")
	cy := x.id(event.UserID, "cy")
	require.Equal(t, cy.Node, x.at(92, false, cy, dev).Profile)
	members, err := Members(t.Context(), x.store, cy.Node)
	require.NoError(t, err)
	require.Equal(t, []Node{cy.Node}, members, "it joins nobody any more")
	require.Len(t, x.states, 1)
}

func TestLogOutOfADeviceOfOne(t *testing.T) {
	x := newTablet(t, nil)
	ann, ben, dev := x.id(event.UserID, "ann"), x.id(event.UserID, "ben"), x.id(event.AnonymousID, "d")
	require.Equal(t, dev.Node, x.at(0, true, dev).Profile, "nobody was logged in")
	require.Empty(t, x.states)
	x.at(1, false, ann, dev)
	require.Equal(t, ann.Node, x.at(2, true, dev).Profile, "the log-out itself is hers")
	got := x.at(3, false, dev)
	require.Equal(t, TypeDeviceSlice, x.rules.TypeOf(got.Profile).Name)
	require.Equal(t, []SetAside{{dev, ReasonLoggedOut}}, got.SetAside)
	require.Equal(t, ann.Node, x.at(1.5, false, dev).Profile, "late: before the log-out")
	require.Equal(t, ann.Node, x.at(4, false, ann, dev).Profile)
	require.Equal(t, ann.Node, x.at(5, false, dev).Profile, "she is back")
	require.Len(t, x.states, 2)
	require.Nil(t, x.states[1].LoggedOut)
	v, err := decode(dev.Node, x.store.values[dev.Node])
	require.NoError(t, err)
	require.Nil(t, v.shared, "nothing is left of it")

	x.at(6, true, ann, dev)
	require.Equal(t, ben.Node, x.at(7, false, ben, dev).Profile)
	got = x.at(8, false, dev)
	require.Equal(t, []SetAside{{dev, ReasonSharedDevice}}, got.SetAside, "somebody else came")

	x = newTablet(t, func(d *Devices) { d.KeepOwner = true })
	x.at(1, false, ann, dev)
	x.at(2, true, dev)
	require.Equal(t, ann.Node, x.at(3, false, dev).Profile, "as the rules say")
	require.Empty(t, x.states)
}

// What does not say that a device has several users.
func TestADeviceThatIsNotShared(t *testing.T) {
	x := newTablet(t, nil)
	ann, mail, dev := x.id(event.UserID, "ann"), x.id(event.Email, "till@shop.example"), x.id(event.AnonymousID, "d")
	x.at(0, false, x.id(event.UserID, "till"), mail)
	x.at(1, false, ann, dev)
	got := x.at(2, false, ann, mail, dev)
	require.Equal(t, []SetAside{{mail, ReasonLimit}}, got.SetAside, "the event names her as well")
	require.Equal(t, ann.Node, x.at(3, false, dev).Profile)
	for i := range 8 { // one person with too many devices
		x.at(4, false, ann, x.id(event.AnonymousID, fmt.Sprint("more", i)))
	}
	require.Empty(t, x.states)
	// One identifier that stands on everybody's devices takes some away, not all.
	shared := 0
	for i := range 3 * maxSharedBy {
		dev := x.id(event.AnonymousID, fmt.Sprint("own", i))
		x.at(5, false, x.id(event.UserID, fmt.Sprint("u", i)), dev)
		if x.at(6, false, x.id(event.UserID, "system"), dev).SetAside != nil && len(x.at(7, false, dev).SetAside) > 0 {
			shared++
		}
	}
	require.Equal(t, maxSharedBy, shared)
}

// A device whose dearer identifier is the device's own: the person that the event names wins all the same.
func TestAPhoneOnSomebodysDevice(t *testing.T) {
	x := newTablet(t, nil)
	ann, ben, phone, dev := x.id(event.UserID, "ann"), x.id(event.UserID, "ben"), x.id(event.Phone, "+48601234567"), x.id("ios.id", "d")
	require.Less(t, x.rules.TypeOf(dev.Node).Priority, x.rules.TypeOf(phone.Node).Priority)
	x.at(0, false, ann, dev)
	x.at(0, false, ben, phone)
	got := x.at(1, false, phone, dev)
	require.Equal(t, ben.Node, got.Profile)
	require.Equal(t, []SetAside{{dev, ReasonSharedDevice}}, got.SetAside)
}

// What a device costs: nothing while it is one person's, and one write for each slice and each part of its idle time.
func TestWhatADeviceCosts(t *testing.T) {
	x := newTablet(t, nil)
	ann, ben, dev := x.id(event.UserID, "ann"), x.id(event.UserID, "ben"), x.id(event.AnonymousID, "d")
	plain := newTablet(t, nil)
	plain.resolver.policy.Devices = nil
	for i, ids := range [][]Identifier{{dev}, {ann, dev}, {dev}, {dev}, {ann, dev}} {
		x.at(float64(i), false, ids...)
		plain.at(float64(i), false, ids...)
	}
	require.Equal(t, [2]int{plain.store.loads, plain.store.sets}, [2]int{x.store.loads, x.store.sets}, "nothing")
	sets := func(do func()) int {
		before := x.store.sets
		do()
		return x.store.sets - before
	}
	require.Equal(t, 3, sets(func() { x.at(10, false, ben, dev) }), "that it is shared, that caches are old, and that it is published")
	require.Equal(t, 0, sets(func() { x.at(11, false, ben, dev) }))
	require.Equal(t, 0, sets(func() { x.at(12, false, dev) }))
	require.Equal(t, 1, sets(func() { x.at(13, true, dev) }), "the log-out")
	require.Equal(t, 1, sets(func() { x.at(14, false, ann, dev) }), "the log-in")
	require.Equal(t, 3, sets(func() {
		for i := range 300 { // half an hour, ten events a minute
			x.at(14+float64(i)/10, false, dev)
		}
	}))
	loads := x.store.loads
	x.at(44, false, dev)
	require.Equal(t, 2, x.store.loads-loads, "a round trip for each level of the graph, as ever")
}

// Slices, by a model that keeps all of them: with records in order, a record is in the last slice that began before it.
func TestSlices(t *testing.T) {
	const idle = 40 * time.Millisecond
	rapid.Check(t, func(t *rapid.T) {
		var d sharedDevice
		var began []int64 // numbers, in order
		who, last, at := Node{}, int64(0), int64(1000)
		for range rapid.IntRange(1, 60).Draw(t, "records") {
			at += rapid.SampledFrom([]int64{0, 0, 1, 5, 9, 100}).Draw(t, "later")
			by := node(rapid.SampledFrom([]int{0, 1, 2}).Draw(t, "who"))
			if by == node(0) {
				by = Node{}
			}
			logOut := rapid.IntRange(0, 6).Draw(t, "out") == 0
			fresh := at-last > idle.Milliseconds() || logOut || !by.IsZero() && by != who
			was := d
			d = d.see(at, by, logOut, idle)
			quiet := at-last > idle.Milliseconds()*(quietParts-1)/quietParts
			switch {
			case d.slice.number != was.slice.number:
				require.True(t, fresh || quiet, "a slice begins without a reason")
				require.Greater(t, d.slice.number, was.slice.number)
				began = append(began, d.slice.number)
				if who = by; logOut {
					who = Node{}
				}
			case fresh:
				t.Fatalf("no slice begins at %d", at)
			}
			last = at
			require.Equal(t, who, d.owner)
			require.Equal(t, began[len(began)-1], d.number(at, idle))
			early := rapid.Int64Range(0, at).Draw(t, "early")
			require.LessOrEqual(t, d.number(early, idle), d.number(at, idle))
			if early < d.slice.start {
				require.Equal(t, d, d.see(early, node(7), true, idle), "what was decided stays")
				require.NotEqual(t, d.slice.number, d.number(early, idle))
			}
		}
	})
}

// stepper is a store that is stopped at every single read and write, fails, and lets answers be lost.
type stepper struct {
	*memory
	rng   *rand.Rand
	yield func(struct{}) bool
}

var errStep = errors.New("injected")

func (s *stepper) step() error {
	if !s.yield(struct{}{}) || s.rng.IntN(60) == 0 {
		return errStep
	}
	return nil
}

func (s *stepper) Load(ctx context.Context, nodes []Node) (out [][]byte, err error) {
	for i := range nodes {
		if err := s.step(); err != nil {
			return nil, err
		}
		one, err := s.memory.Load(ctx, nodes[i:i+1])
		if err != nil {
			return nil, err
		}
		out = append(out, one...)
	}
	return out, nil
}

func (s *stepper) CompareAndSet(ctx context.Context, swaps []Swap) (out []bool, err error) {
	for i := range swaps {
		if err := s.step(); err != nil {
			return nil, err
		}
		one, err := s.memory.CompareAndSet(ctx, swaps[i:i+1])
		if err != nil {
			return nil, err
		}
		out = append(out, one...)
		if s.rng.IntN(60) == 0 {
			return nil, errStep // done, and nobody hears of it
		}
	}
	return out, nil
}

// Several stitchers over one store see the same devices, switched at every read and write, with errors, lost answers and
// records decided again. No device that two people were seen with stays somebody's for batches that begin later; its slices
// are nobody's; what a device is, is published as it is in the end.
func TestDevicesUnderFaults(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 15
	}
	for seed := range seeds {
		devicesUnderFaults(t, seed)
	}
}

func devicesUnderFaults(t *testing.T, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 11)) //nolint:gosec // a seed reproduces
	rules, st := newTestRules(t, Options{}), newMemory()
	var users, devices []Identifier
	for i := range 3 {
		users, devices = append(users, identify(t, event.UserID, fmt.Sprint("u", i))), append(devices, identify(t, event.AnonymousID, fmt.Sprint("d", i)))
	}
	policy := Policy{TypeOf: rules.TypeOf, Devices: rules.Devices()}
	users3 := map[Node]bool{}
	for _, u := range users {
		users3[u.Node] = true
	}
	published := map[string]NodeState{} // as Kafka keeps them: the last by key
	at, n := simEpoch, 0
	actor := func(yield func(struct{}) bool) {
		store := &stepper{memory: st, rng: rng, yield: yield}
		r := NewResolver(store, 100, policy)
		ctx := context.Background()
		for range 25 {
			var batch []Request
			for range 1 + rng.IntN(3) {
				n++
				at = at.Add(time.Duration(rng.IntN(600)) * time.Second)
				q := request(fmt.Sprint(n), devices[rng.IntN(len(devices))])
				if rng.IntN(3) == 0 {
					q.Identifiers = append(q.Identifiers, users[rng.IntN(len(users))])
				}
				q.Cause.Time, q.At, q.Trusted, q.LogOut = at, at.Add(-time.Duration(rng.IntN(3)*rng.IntN(900))*time.Second), true, rng.IntN(8) == 0
				batch = append(batch, q)
			}
			shared := map[Node]bool{} // and somebody has been told so, before the batch begins
			for _, d := range devices {
				v, err := decode(d.Node, st.values[d.Node])
				require.NoError(t, err)
				shared[d.Node] = v.shared != nil && v.shared.kind == deviceShared && v.shared.told
			}
			var got []Result
			err := errStep
			for tries := 0; errors.Is(err, errStep); tries++ { // a batch that fails is decided again, for ever
				if tries > 1000 || !yield(struct{}{}) {
					return
				}
				got, err = r.Resolve(ctx, batch)
			}
			require.NoError(t, err)
			var states []NodeState
			for i, q := range batch {
				checkDevices(t, rules, q, got[i], shared, users3)
				states = append(states, got[i].States...)
			}
			if !yield(struct{}{}) {
				return
			}
			for _, s := range states {
				published[s.Key()] = s
			}
			for err = errStep; errors.Is(err, errStep); {
				if err = r.Confirm(ctx, losers(t, got)); err == nil {
					err = r.Told(ctx, states)
				}
				if !yield(struct{}{}) {
					return
				}
			}
			require.NoError(t, err)
		}
	}
	var running []func() (struct{}, bool)
	for range 3 {
		next, stop := iter.Pull(actor)
		defer stop()
		running = append(running, next)
	}
	for len(running) > 0 {
		i := rng.IntN(len(running))
		if _, ok := running[i](); !ok {
			running = slices.Delete(running, i, i+1)
		}
	}
	// One more look at each device, without faults: whatever is not known to be published is handed out.
	r := NewResolver(st, 0, policy)
	for _, d := range devices {
		q := request("last", d)
		q.Cause.Time = at
		got, err := r.Resolve(t.Context(), []Request{q})
		require.NoError(t, err)
		for _, s := range got[0].States {
			published[s.Key()] = s
		}
		require.NoError(t, r.Told(t.Context(), got[0].States))
		v, err := decode(d.Node, st.values[d.Node])
		require.NoError(t, err)
		is := sharedDevice{}
		if v.shared != nil {
			is = *v.shared
		}
		state := is.state(d.Node)
		said := published[state.Key()]
		require.True(t, said.same(&state), "seed %d: published %+v, is %+v", seed, said, state)
	}
	for n, raw := range st.values {
		v, err := decode(n, raw)
		require.NoError(t, err)
		people := 0
		for i := range v.size() {
			require.NotEqual(t, TypeDeviceSlice, rules.TypeOf(v.member(i)).Name, "seed %d: a slice joins nobody", seed)
			if users3[v.member(i)] {
				people++
			}
		}
		require.LessOrEqual(t, people, 1, "seed %d: two people are one", seed)
	}
}

// checkDevices judges one answer.
func checkDevices(t *testing.T, rules *Rules, q Request, got Result, shared, users map[Node]bool) {
	t.Helper()
	slice := rules.TypeOf(got.Profile).Name == TypeDeviceSlice
	if len(q.Identifiers) > 1 {
		require.Equal(t, q.Identifiers[1].Node, got.Profile, "a user id says who it is")
		return
	}
	d := q.Identifiers[0].Node
	require.Equal(t, slice, len(got.SetAside) == 1, "a slice's record says why")
	if shared[d] {
		require.True(t, slice, "a record of a shared device is %s's", got.Profile)
		require.Equal(t, ReasonSharedDevice, got.SetAside[0].Reason)
	}
	require.True(t, slice || got.Profile == d || users[got.Profile])
}
