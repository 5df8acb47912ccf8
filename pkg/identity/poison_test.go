package identity

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
)

// Poisoned streams. A person is changed if somebody else's identifier is on his list, or one of his own is missing.

// strangers is how many people a poisoned stream speaks of.
const strangers = 1000

// crowd sends events of people, each with a user id, an address and a device of his own, and what poisons the stream.
type crowd struct {
	t        *testing.T
	rules    *Rules
	store    *memory
	resolver *Resolver
	n        int
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	rules, st := newTestRules(t, Options{}), newMemory()
	return &crowd{t: t, rules: rules, store: st, resolver: NewResolver(st, 1000, Policy{TypeOf: rules.TypeOf})}
}

func own(i int) []event.Identifier {
	return []event.Identifier{
		{Type: event.UserID, Value: fmt.Sprint("user-", i)}, {Type: event.Email, Value: fmt.Sprintf("p%d@people.example", i)},
		{Type: event.AnonymousID, Value: fmt.Sprint("device-", i)},
	}
}

// send resolves one event, of a trusted source. It has an identifier at least.
func (c *crowd) send(ids ...event.Identifier) Result {
	c.t.Helper()
	c.n++
	q := Request{Trusted: true, Source: "shop", Cause: Cause{
		Source: fmt.Sprint("0:", c.n), MessageID: fmt.Sprint("m", c.n), Rule: RuleSameEvent, Time: simEpoch.Add(time.Duration(c.n) * time.Second)}}
	for _, raw := range ids {
		if id, why := c.rules.Identify(raw); why == "" {
			q.Identifiers = append(q.Identifiers, id)
		}
	}
	if len(q.Identifiers) == 0 {
		q.Identifiers = append(q.Identifiers, c.rules.EventIdentifier("shop", q.Cause.MessageID))
	}
	got, err := c.resolver.Resolve(c.t.Context(), []Request{q})
	require.NoError(c.t, err)
	require.NoError(c.t, c.resolver.Confirm(c.t.Context(), losers(c.t, got)))
	return got[0]
}

// changed counts the people who are not exactly their own identifiers.
func (c *crowd) changed() int {
	c.t.Helper()
	n := 0
	for i := range strangers {
		want := map[Node]bool{}
		for _, raw := range own(i) {
			id, why := c.rules.Identify(raw)
			require.Empty(c.t, why)
			want[id.Node] = true
		}
		user, _ := c.rules.Identify(own(i)[0])
		got, err := Members(c.t.Context(), c.store, user.Node)
		require.NoError(c.t, err)
		same := len(got) == len(want)
		for _, m := range got {
			same = same && want[m]
		}
		if !same {
			n++
		}
	}
	return n
}

// TestPoisonedStreams: what a thousand people's events bring in that is not theirs changes this many of them, at most.
// docs/identity.md states the numbers.
func TestPoisonedStreams(t *testing.T) {
	constant := func(typ, value string) func(int) []event.Identifier {
		return func(i int) []event.Identifier { return append(own(i), event.Identifier{Type: typ, Value: value}) }
	}
	for name, c := range map[string]struct {
		event   func(i int) []event.Identifier
		changed int
		swapped int // people about whom the first that is sent is wrong
	}{
		// Whoever comes first has it: his limit of user ids keeps the others out.
		"a constant of a type of the shop's own": {constant("loyalty_card", "0815-4711"), 1, 0},
		"a constant device":                      {constant(event.AnonymousID, "kiosk-7"), 1, 0},
		"a constant address":                     {constant(event.Email, "till@shop.example"), 1, 0},
		// A user id that everybody has stands against everybody's own. Where nothing is known yet, it may get addresses and
		// devices up to their limits.
		"a constant user id": {constant(event.UserID, "system-user"), 5, 0},
		// These name nobody at all.
		"a null that is a text":         {constant(event.Email, "null"), 0, 0},
		"a null user id":                {constant(event.UserID, "undefined"), 0, 0},
		"a null of the shop's own":      {constant("loyalty_card", "None"), 0, 0},
		"a template that nobody filled": {constant(event.UserID, "{{ user.id }}"), 0, 0},
		// User id and address stand in each other's field, with every tenth: the address is no address, the user id is one that
		// nobody has. If that is the first that is heard of a device, it is that one's; nobody else is touched.
		"a swapped pair of fields": {func(i int) []event.Identifier {
			ids := own(i)
			if i%10 == 0 {
				ids[0].Value, ids[1].Value = ids[1].Value, ids[0].Value
			}
			return ids
		}, 0, strangers / 10},
	} {
		t.Run(name, func(t *testing.T) {
			crowd := newCrowd(t)
			for i := range strangers {
				crowd.send(own(i)...)
			}
			for i := range strangers {
				crowd.send(c.event(i)...)
			}
			require.LessOrEqual(t, crowd.changed(), c.changed)
		})
		t.Run(name+", from the first event on", func(t *testing.T) {
			crowd := newCrowd(t)
			for i := range strangers {
				crowd.send(c.event(i)...)
			}
			for i := range strangers {
				crowd.send(own(i)...)
			}
			if c.swapped > 0 {
				require.Equal(t, c.swapped, crowd.changed(), "those that were sent wrongly themselves")
				return
			}
			require.LessOrEqual(t, crowd.changed(), c.changed)
		})
	}
}

// TestSegmentsWorkedExample: a person has user id abc123 and jane@example1.com; an event brings abc456 with the same
// address. The limit of user ids is one, so the address is set aside, and abc456 is a person of his own.
func TestSegmentsWorkedExample(t *testing.T) {
	c := newCrowd(t)
	jane := event.Identifier{Type: event.Email, Value: "jane@example1.com"}
	first := c.send(event.Identifier{Type: event.UserID, Value: "abc123"}, jane)
	got := c.send(event.Identifier{Type: event.UserID, Value: "abc456"}, jane)
	require.NotEqual(t, first.Profile, got.Profile)
	second, _ := c.rules.Identify(event.Identifier{Type: event.UserID, Value: "abc456"})
	require.Equal(t, second.Node, got.Profile)
	address, _ := c.rules.Identify(jane)
	require.Equal(t, []SetAside{{Identifier: address, Reason: ReasonLimit}}, got.SetAside)
	require.Equal(t, first.Profile, c.send(jane).Profile, "the address stays with whom it was")
}

// TestWindowEnds: what is limited per week may come back when the week is over, and a late record does not slip in.
func TestWindowEnds(t *testing.T) {
	c := newCrowd(t)
	user := event.Identifier{Type: event.UserID, Value: "u"}
	device := func(i int) event.Identifier {
		return event.Identifier{Type: event.AnonymousID, Value: fmt.Sprint("d", i)}
	}
	limit := c.rules.TypeOf(identify(t, event.AnonymousID, "d").Node).Limit
	require.Equal(t, week, limit.Per)
	for i := range limit.Values {
		require.Empty(t, c.send(user, device(i)).SetAside)
	}
	require.Len(t, c.send(user, device(90)).SetAside, 1, "one too many in a week")
	now := c.n
	c.n += int(week / time.Second)
	require.Empty(t, c.send(user, device(91)).SetAside, "the week is over")
	c.n = now
	require.Len(t, c.send(user, device(92)).SetAside, 1, "a late record of the first week")
}

// TestLateBackendEvent: the shop's server speaks of a new customer before the browser says who that is (PostHog waits 60
// seconds for it). Nobody waits here, and all of it ends in one person, in whatever order.
func TestLateBackendEvent(t *testing.T) {
	user, device := event.Identifier{Type: event.UserID, Value: "new"}, event.Identifier{Type: event.AnonymousID, Value: "browser"}
	for name, order := range map[string][][]event.Identifier{
		"the server first":  {{device}, {user}, {user, device}, {device}, {user}},
		"the browser first": {{device}, {user, device}, {user}, {device}, {user}},
	} {
		c := newCrowd(t)
		for _, ids := range order {
			require.Empty(t, c.send(ids...).SetAside, name)
		}
		want := c.send(user).Profile
		require.Equal(t, want, c.send(device).Profile, name)
		id, _ := c.rules.Identify(user)
		require.Equal(t, id.Node, want, "%s: the user's id is the person's, so his events were under it all along", name)
	}
}

// TestUntrustedSources cannot join two known people, however they try.
func TestUntrustedSources(t *testing.T) {
	ctx := t.Context()
	ann, bob := identify(t, event.UserID, "ann"), identify(t, event.UserID, "bob")
	mail, phone := identify(t, event.Email, "bob@x.pl"), identify(t, event.Phone, "+48601234567")
	a, b, mallory := identify(t, event.AnonymousID, "a"), identify(t, event.AnonymousID, "b"), identify(t, event.AnonymousID, "mallory")
	rules := newTestRules(t, Options{})
	for _, claims := range []Claims{ClaimsNew, ClaimsNever} {
		r := NewResolver(newMemory(), 0, Policy{TypeOf: rules.TypeOf, Claims: claims})
		resolve := func(trusted bool, ids ...Identifier) Result {
			q := request("1", ids...)
			q.Trusted = trusted
			got, err := r.Resolve(ctx, []Request{q})
			require.NoError(t, err)
			return got[0]
		}
		resolve(true, ann, a)
		resolve(true, mail, b)
		require.Equal(t, []SetAside{{a, ReasonLimit}}, resolve(true, bob, a).SetAside)
		require.Equal(t, []SetAside{{mail, ReasonUntrusted}}, resolve(false, ann, mail).SetAside, "two known people")
		require.Equal(t, []SetAside{{a, ReasonUntrusted}}, resolve(false, mail, a).SetAside, "by way of a device")
		require.Empty(t, resolve(false, mail, mallory).SetAside, "a device is nobody yet")
		claimed := resolve(false, ann, phone)
		if claims == ClaimsNew {
			require.Empty(t, claimed.SetAside, "a first claim")
		} else {
			require.Equal(t, []SetAside{{phone, ReasonUntrusted}}, claimed.SetAside)
		}
		require.Empty(t, resolve(true, ann, mail).SetAside, "the shop may")
	}
}

// TestGovernor: a link beyond a cap is suspended, its record is resolved without it, and the pair is announced once.
func TestGovernor(t *testing.T) {
	ctx := t.Context()
	device := func(i int) Identifier { return identify(t, event.AnonymousID, fmt.Sprint("d", i)) }
	user := func(i int) Identifier { return identify(t, event.UserID, fmt.Sprint("u", i)) }
	for name, c := range map[string]struct {
		caps   Caps
		before [][]Identifier
		over   []Identifier
		cap    Cap
	}{
		"members": {Caps{Members: 3}, [][]Identifier{{user(1), device(1)}, {user(1), device(2)}}, []Identifier{user(1), device(3)}, CapMembers},
		"merges": {Caps{Merges: 1}, [][]Identifier{{user(1), device(1)}, {user(2), device(2)}, {user(3), device(3)}, {user(1), user(2)}},
			[]Identifier{user(1), user(3)}, CapMerges},
		"links": {Caps{Degree: 2}, [][]Identifier{{user(1), device(1)}, {user(1), device(2)}}, []Identifier{user(1), device(3)}, CapDegree},
		"per minute": {Caps{PerMinute: 1}, [][]Identifier{{user(1), device(1)}, {user(2), device(2)}, {user(3), device(3)}, {user(1), user(2)}},
			[]Identifier{user(1), user(3)}, CapPerMinute},
		"per minute and source": {Caps{PerMinutePerSource: 1, PerMinute: 9}, [][]Identifier{{user(1), device(1)}, {user(2), device(2)}, {user(3), device(3)}, {user(1), user(2)}},
			[]Identifier{user(1), user(3)}, CapPerMinuteSource},
	} {
		r := NewResolver(newMemory(), 0, Policy{Caps: c.caps})
		for _, ids := range c.before {
			got, err := r.Resolve(ctx, []Request{request("1", ids...)})
			require.NoError(t, err)
			require.Empty(t, got[0].SetAside, name)
		}
		over := request("2", c.over...)
		for range 2 {
			got, err := r.Resolve(ctx, []Request{over})
			require.NoError(t, err)
			require.Len(t, got[0].SetAside, 1, name)
			require.Equal(t, ReasonGovernor, got[0].SetAside[0].Reason)
			require.Len(t, got[0].Suspended, 1)
			require.Equal(t, c.cap, got[0].Suspended[0].Cap, name)
			text, err := got[0].Suspended[0].Encode()
			require.NoError(t, err)
			back, err := ParseSuspension(text)
			require.NoError(t, err)
			require.Equal(t, got[0].Suspended[0].Key(), back.Key())
		}
		got, err := r.Resolve(ctx, []Request{over})
		require.NoError(t, err)
		r.Announced(got[0].Suspended[0].Key())
		got, err = r.Resolve(ctx, []Request{over})
		require.NoError(t, err)
		require.Len(t, got[0].SetAside, 1)
		require.Empty(t, got[0].Suspended, "%s: announced once", name)
		if c.caps.PerMinute > 0 {
			over.Cause.Time = over.Cause.Time.Add(time.Minute)
			got, err = r.Resolve(ctx, []Request{over})
			require.NoError(t, err)
			require.Empty(t, got[0].SetAside, "another minute")
		}
	}
	for _, text := range []string{"", "{}", `{"evidence":[{},{}]}`} {
		_, err := ParseSuspension([]byte(text))
		require.Error(t, err)
	}
}
