package journey_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/commerce"
	"github.com/weft-cdp/weft/pkg/journey"
)

// mistaken is two people who were taken for one: what was published of that one, and what each of them did.
type mistaken struct {
	*world
	did       [2][]record // by person, in order of receipt
	requested [][]byte
	settled   [][]byte
	sent      map[string][]int64 // by cart: when a message about it was decided
	cut       time.Time
}

// decide takes in what was decided for the one.
func (m *mistaken) decide(r journey.Result) {
	for i := range r.Requests {
		x := &r.Requests[i]
		b, err := journey.Encode(x)
		require.NoError(m, err)
		m.requested = append(m.requested, b)
		m.sent[x.Cart.ID] = append(m.sent[x.Cart.ID], x.DecidedAt)
		m.ended[x.Receipt] = "requested"
		b, err = journey.Encode(x.Settle(journey.Delivered, journey.ReasonSent, "", m.now.UnixMilli()+5))
		require.NoError(m, err)
		m.settled = append(m.settled, b)
	}
	for i := range r.Receipts {
		b, err := journey.Encode(&r.Receipts[i])
		require.NoError(m, err)
		m.settled = append(m.settled, b)
		m.ended[r.Receipts[i].Receipt] = r.Receipts[i].Reason
	}
}

func (m *mistaken) pass(most time.Duration) {
	m.now = m.now.Add(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, time.Minute, 40 * time.Minute, most}).Draw(m.T, "wait"))
}

// mistake lives the life of the one, up to the command that splits them.
func mistake(t *rapid.T, d *journey.Decider) *mistaken {
	m := &mistaken{world: draw(t, d), sent: map[string][]int64{}}
	m.people = nil
	for i := range m.did {
		m.people = append(m.people, &person{key: fmt.Sprint("part", i), ops: map[string][]int64{}})
	}
	var one journey.State
	for range rapid.IntRange(1, 30).Draw(t, "steps") {
		m.pass(3 * time.Hour)
		m.decide(d.Fire("one", &one, m.now))
		who := rapid.IntRange(0, 1).Draw(t, "who")
		r := m.happen(m.people[who])
		m.did[who] = append(m.did[who], r)
		m.decide(d.Observe("one", &one, r.decode(t), m.now))
	}
	m.pass(3 * time.Hour)
	m.decide(d.Fire("one", &one, m.now))
	m.cut = m.now.Add(time.Millisecond)
	m.now = m.cut.Add(time.Second)
	return m
}

// bring tells a part what was decided.
func (m *mistaken) bring(p *person) {
	for _, b := range m.settled {
		require.NoError(m, p.s.Bring(p.key, b, false))
	}
	for _, b := range m.requested {
		require.NoError(m, p.s.Bring(p.key, b, true))
	}
}

// again tells a part one event again.
func (m *mistaken) again(p *person, r record) {
	res := m.d.Again(p.key, p.key, &p.s, r.decode(m), m.now)
	require.Empty(m, res.Receipts)
	require.Empty(m, res.Requests)
	p.s = copyOf(m, p.s)
}

// whole ends the telling.
func (m *mistaken) whole(p *person) {
	m.take(p, m.d.Whole(p.key, p.key, &p.s, m.cut, m.now))
}

// live has something new happen to a part. What is said of what had ended before is kept back, as the stage does.
func (m *mistaken) live(p *person, s *journey.State, r record) journey.Result {
	res := m.d.Observe(p.key, s, r.decode(m), m.now)
	res.Receipts = slices.DeleteFunc(res.Receipts, func(x journey.Receipt) bool { return s.Over(x.Receipt) })
	return res
}

// alone is the reference: the part's events folded by themselves as a rebuild folds them, with the same decisions.
func (m *mistaken) alone(p *person, did []record) journey.State {
	ends := journey.Ends{}
	for _, b := range m.requested {
		require.NoError(m, ends.Requested(b))
	}
	for _, b := range m.settled {
		require.NoError(m, ends.Settled(b))
	}
	var list []*journey.End
	for _, x := range ends {
		list = append(list, x)
	}
	journey.Order(list)
	var s journey.State
	past := func(in *journey.Instance, _ int64) bool { return ends[in.Receipt] != nil && ends[in.Receipt].Past }
	for _, r := range did {
		s.RestoreAll(list, r.meta.ReceivedAt, ends.Over)
		m.d.Observe(p.key, &s, r.decode(m), r.meta.ReceivedAt)
		s.Drop(past)
	}
	s.RestoreAll(list, time.Time{}, ends.Over)
	s.Drop(func(in *journey.Instance, due int64) bool { return ends.Over(in.Receipt) || due < m.cut.UnixMilli() })
	return s
}

// after lives on: nothing that was sent or receipted before is again, and nothing is said of a cart twice.
func (m *mistaken) after(p *person) {
	for range 4 {
		if due, ok := p.s.Due(); ok && !due.After(m.now) {
			res := m.d.Fire(p.key, &p.s, m.now)
			for _, x := range res.Requests {
				for _, at := range m.sent[x.Cart.ID] {
					if x.ChangedAt <= at {
						m.Fatalf("cart %q was written about at %d, was touched at %d, and is written about again", x.Cart.ID, at, x.ChangedAt)
					}
				}
			}
			m.take(p, res) // that no receipt ends twice, that nobody who bought is written to, and more
		}
		m.now = m.now.Add(5 * time.Hour)
	}
	if due, waits := p.s.Due(); waits {
		m.Fatalf("still due at %s", due)
	}
}

// The state of each part of two people who were taken for one is that of its events alone, with the decisions of before
// brought back: to the byte, where all is told again before anything new comes.
func TestPartsAreAsIfNeverMet(t *testing.T) {
	d := decider(parse(t, journeyFile))
	pending, barred := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		m := mistake(t, d)
		for i, p := range m.people {
			m.bring(p)
			for _, r := range m.did[i] {
				m.again(p, r)
			}
			if due, waits := p.s.Due(); waits {
				t.Fatalf("due at %s while it is told again", due)
			}
			m.whole(p)
			want := m.alone(p, m.did[i])
			require.Equal(t, text(t, &want), text(t, &p.s))
			_, waits := p.s.Due()
			if waits {
				pending++
			} else {
				barred++
			}
			for range rapid.IntRange(0, 3).Draw(t, "live") {
				m.pass(2 * time.Hour)
				r := m.happen(p)
				d.Observe(p.key, &want, r.decode(t), m.now)
				m.take(p, m.live(p, &p.s, r))
				require.Equal(t, text(t, &want), text(t, &p.s))
			}
			m.after(p)
		}
	})
	require.NotZero(t, pending)
	require.NotZero(t, barred)
}

// New events of a part may come before those that are told again, and between them. Carts, answers, addresses and decisions
// are the same whatever the order, and so is which carts a journey waits with and until when, if what is new happened behind
// the cut, and no checkout leaves it open which cart it is of; which of its events is named as the one that armed it may differ. A cart that lies as it did when
// it was written about may be waited with once more, and ends as already_sent; of a decision that itself said already_sent the
// lines are those of the cart as it is when that is brought back.
func TestNewEventsComeBetween(t *testing.T) {
	d := decider(parse(t, journeyFile))
	interleaved := 0
	rapid.Check(t, func(t *rapid.T) {
		m := mistake(t, d)
		for i, p := range m.people {
			ordered := person{key: p.key, ops: p.ops}
			var live []record
			// What happened before the cut and comes behind it may arm a cart that somebody else's order had ended, and so may a
			// checkout, which is of whichever cart is known by then.
			odd := slices.ContainsFunc(m.did[i], checkout)
			for range rapid.IntRange(0, 4).Draw(t, "live") {
				m.now = m.now.Add(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, 10 * time.Minute}).Draw(t, "wait"))
				live = append(live, m.happen(p))
				r := live[len(live)-1]
				odd = odd || r.at.Before(m.cut) || checkout(r)
			}
			m.bring(&ordered)
			for _, r := range m.did[i] {
				m.again(&ordered, r)
			}
			d.Whole(p.key, p.key, &ordered.s, m.cut, m.now)
			for _, r := range live {
				m.live(p, &ordered.s, r)
			}
			next := func() {
				m.take(p, m.live(p, &p.s, live[0]))
				live = live[1:]
			}
			early := func() bool { return len(live) > 0 && rapid.Bool().Draw(t, "live first") }
			for brought, told := false, m.did[i]; !brought || len(told) > 0; {
				switch {
				case early():
					next()
					interleaved++
				case !brought:
					m.bring(p)
					brought = true
				default:
					m.again(p, told[0])
					told = told[1:]
				}
			}
			for early() {
				next()
			}
			m.whole(p)
			for len(live) > 0 {
				next()
			}
			require.Equal(t, m.said(&ordered.s, !odd), m.said(&p.s, !odd))
			m.after(p)
		}
	})
	require.NotZero(t, interleaved)
}

func checkout(r record) bool { return strings.Contains(r.body, "Checkout Started") }

// said is a state but for which event armed what; with what waits, or without.
func (m *mistaken) said(s *journey.State, waiting bool) string {
	c := copyOf(m, *s)
	var waits []string
	for name, b := range c.Brands {
		for _, in := range b.Running {
			carts := b.Carts.Open()
			i := slices.IndexFunc(carts, func(c commerce.OpenCart) bool { return c.ID == in.Cart })
			barred := func(x journey.Decision) bool {
				return x.Cart == in.Cart && x.Journey == in.Journey && (x.Sent || carts[i].LastActivity <= x.At)
			}
			if i < 0 || slices.ContainsFunc(b.Decided, barred) || !waiting {
				continue
			}
			waits = append(waits, fmt.Sprint(name, in.Journey, in.Cart, max(b.Active, in.LastOp)))
		}
		b.Running = nil
		for i := range b.Decided {
			b.Decided[i].Lines = 0
		}
	}
	slices.Sort(waits)
	return strings.Join(waits, " ") + text(m, &c)
}
