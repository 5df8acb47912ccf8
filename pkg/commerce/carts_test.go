package commerce

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// step is one operation on Carts: a change, or a purchase.
type step struct {
	change Change
	bought time.Time
}

func (s step) do(c *Carts) {
	if s.bought.IsZero() {
		c.Apply(s.change)
		return
	}
	c.Bought(s.bought)
}

var base = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(n int) time.Time { return base.Add(time.Duration(n) * time.Second) }

func item(product string, quantity int64) line {
	return line{ProductID: product, Name: "name of " + product, Price: 25_000, Quantity: quantity * 10_000, Currency: "EUR"}
}

func genStep(maxTime int) *rapid.Generator[step] {
	return rapid.Custom(func(t *rapid.T) step {
		when := at(rapid.IntRange(1, maxTime).Draw(t, "time"))
		what := rapid.IntRange(0, 19).Draw(t, "what")
		if what == 0 {
			return step{bought: when}
		}
		ch := Change{
			Time:   when,
			CartID: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "cart"),
		}
		lines := func(least, most int) []line {
			return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) line {
				l := item(rapid.SampledFrom([]string{"p", "q", "r"}).Draw(t, "product"), rapid.Int64Range(0, 3).Draw(t, "quantity"))
				l.Price = rapid.Int64Range(0, 1_000_000).Draw(t, "price")
				l.Currency = rapid.SampledFrom([]string{"EUR", "PLN"}).Draw(t, "currency")
				return l
			}), least, most).Draw(t, "lines")
		}
		switch {
		case what < 9:
			ch.Kind, ch.lines = Add, lines(1, 2)
		case what < 13:
			ch.Kind, ch.lines = Remove, lines(1, 1)
		case what < 16:
			ch.Kind, ch.lines = Snapshot, lines(0, 3)
		case what < 17:
			ch.Kind = View
		default:
			ch.Checkout, ch.Kind = true, View
			if rapid.Bool().Draw(t, "with products") {
				ch.Kind, ch.lines = Snapshot, lines(0, 2)
			}
		}
		return step{change: ch}
	})
}

// genSteps gives each step the id of a message of its own.
func genSteps(t *rapid.T, maxTime, most int) []step {
	steps := rapid.SliceOfN(genStep(maxTime), 0, most).Draw(t, "steps")
	first := rapid.IntRange(0, 50).Draw(t, "first id")
	for i := range steps {
		steps[i].change.id = opID((first + i*37) % 101) // some ascend, some descend
	}
	return steps
}

func opID(n int) uint64 { return uint64(n) } //nolint:gosec // never negative here

// shuffled is a permutation from one drawn seed, which for hundreds of items is faster than drawing it.
func shuffled[T any](t *rapid.T, items []T) []T {
	seed := rapid.Uint64().Draw(t, "order")
	items = append([]T(nil), items...)
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(items), func(i, j int) { //nolint:gosec // reproducible by the seed
		items[i], items[j] = items[j], items[i]
	})
	return items
}

func state(t require.TestingT, c *Carts) string {
	b, err := json.Marshal(c)
	require.NoError(t, err)
	return string(b)
}

// tree folds steps over a random tree of merges.
func tree(t *rapid.T, steps []step) Carts {
	var c Carts
	if len(steps) < 2 || rapid.IntRange(0, 3).Draw(t, "leaf") == 0 {
		for _, s := range steps {
			s.do(&c)
		}
		return c
	}
	n := rapid.IntRange(0, len(steps)).Draw(t, "split")
	if n == 0 || n == len(steps) {
		n = len(steps) / 2
	}
	left, right := tree(t, steps[:n]), tree(t, steps[n:])
	before := state(t, &right)
	left.Merge(right)
	require.Equal(t, before, state(t, &right), "Merge changed what it merged from")
	return left
}

func TestCartsConvergeInAnyOrderWithDuplicatesAndMerges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		steps := genSteps(t, 12, 14)
		var want Carts
		for _, s := range steps {
			s.do(&want)
		}
		again := append([]step(nil), steps...)
		for _, s := range steps {
			if rapid.Bool().Draw(t, "twice") {
				again = append(again, s)
			}
		}
		again = rapid.Permutation(again).Draw(t, "order")
		got := tree(t, again)
		require.Equal(t, state(t, &want), state(t, &got))
		require.Equal(t, want.Open(), got.Open())

		var back Carts
		require.NoError(t, json.Unmarshal([]byte(state(t, &got)), &back))
		require.Equal(t, got.Open(), back.Open(), "JSON keeps everything")
	})
}

func TestCartsConvergeAtTheCapOfOperations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(MaxOps-3, MaxOps+20).Draw(t, "n")
		steps := make([]step, 0, n+1)
		for i := range n {
			steps = append(steps, step{change: Change{Kind: Add, Time: at(i), id: opID(i), lines: []line{item(fmt.Sprint("p", i%7), 1)}}})
		}
		if rapid.Bool().Draw(t, "snapshot") {
			s := rapid.IntRange(0, n).Draw(t, "when")
			steps = append(steps, step{change: Change{Kind: Snapshot, Time: at(s), id: 77, lines: []line{item("s", 2)}}})
		}
		var want Carts
		for _, s := range steps {
			s.do(&want)
		}
		got := tree(t, shuffled(t, steps))
		require.Equal(t, state(t, &want), state(t, &got))
		size := 0
		for _, p := range got.ByID[""].Ops {
			size += len(p.Lines)
		}
		require.LessOrEqual(t, size, MaxOps)
	})
}

func TestBoughtCoversEverythingUpToIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		steps := genSteps(t, 10, 12)
		when := at(rapid.IntRange(0, 11).Draw(t, "bought"))
		steps = append(steps, step{bought: when})
		var after []step
		for _, s := range steps {
			if !s.bought.IsZero() || s.change.Time.After(when) {
				after = append(after, s)
			}
		}
		got, want := tree(t, rapid.Permutation(steps).Draw(t, "order")), Carts{}
		for _, s := range after {
			s.do(&want)
		}
		require.Equal(t, want.Open(), got.Open(), "as if nothing up to the purchase had been")
		for _, c := range got.Open() {
			require.True(t, c.FirstActivity.After(when))
		}
	})
}

func TestCartsStayBounded(t *testing.T) {
	var c Carts
	for i := range 3 * MaxCarts {
		c.Apply(Change{CartID: fmt.Sprint("cart ", i), Kind: Add, Time: at(i), id: opID(i), lines: []line{item("p", 1)}})
	}
	require.Len(t, c.Open(), MaxCarts)
	require.NotNil(t, c.ByID[fmt.Sprint("cart ", 3*MaxCarts-1)], "the latest stay")
}

func TestOpen(t *testing.T) {
	add := func(cart, product string, n int, q int64) Change {
		return Change{CartID: cart, Kind: Add, Time: at(n), id: opID(n), lines: []line{item(product, q)}}
	}
	remove := func(cart, product string, n int, q int64) Change {
		ch := add(cart, product, n, q)
		ch.Kind = Remove
		return ch
	}
	snap := func(cart string, n int, ls ...line) Change {
		return Change{CartID: cart, Kind: Snapshot, Time: at(n), id: opID(n), lines: ls}
	}
	checkout := func(cart string, n int, ls ...line) Change {
		ch := snap(cart, n, ls...)
		ch.Checkout = true
		return ch
	}
	view := func(cart string, n int) Change {
		return Change{CartID: cart, Kind: View, Time: at(n), id: opID(n)}
	}
	for _, tc := range []struct {
		name    string
		changes []Change
		bought  int
		want    []string // cart: product x quantity..., value, first-last, checkout
	}{
		{"nothing", nil, 0, nil},
		{"an addition", []Change{add("c", "p", 1, 2)}, 0, []string{"c: p x2 = 5 EUR 1-1"}},
		{"additions of one product add up", []Change{add("c", "p", 1, 2), add("c", "p", 2, 1)}, 0, []string{"c: p x3 = 7.5 EUR 1-2"}},
		{"one piece less", []Change{add("c", "p", 1, 2), remove("c", "p", 3, 1)}, 0, []string{"c: p x1 = 2.5 EUR 1-3"}},
		{"all removed", []Change{add("c", "p", 1, 2), remove("c", "p", 3, 2)}, 0, nil},
		{"removed more than there was", []Change{add("c", "p", 1, 1), add("c", "q", 2, 1), remove("c", "p", 3, 9)}, 0, []string{"c: q x1 = 2.5 EUR 1-3"}},
		{"a removal before its addition, by two clocks", []Change{remove("c", "p", 1, 1), add("c", "p", 2, 1)}, 0, nil},
		{"a snapshot replaces", []Change{add("c", "p", 1, 2), snap("c", 5, item("q", 1))}, 0, []string{"c: q x1 = 2.5 EUR 5-5"}},
		{"late addition from before the snapshot", []Change{snap("c", 5, item("q", 1)), add("c", "p", 1, 2)}, 0, []string{"c: q x1 = 2.5 EUR 5-5"}},
		{"addition in the snapshot's millisecond is in it", []Change{add("c", "q", 5, 1), snap("c", 5, item("q", 1))}, 0, []string{"c: q x1 = 2.5 EUR 5-5"}},
		{"addition after the snapshot", []Change{snap("c", 5, item("q", 1)), add("c", "p", 7, 2)}, 0, []string{"c: q x1 p x2 = 7.5 EUR 5-7"}},
		{"cleared", []Change{add("c", "p", 1, 2), snap("c", 2)}, 0, nil},
		{"viewing is activity", []Change{add("c", "p", 1, 1), view("c", 9)}, 0, []string{"c: p x1 = 2.5 EUR 1-9"}},
		{"viewing makes no cart", []Change{view("c", 9)}, 0, nil},
		{"bought", []Change{add("c", "p", 1, 1), add("", "q", 2, 1)}, 2, nil},
		{"bought, then added", []Change{add("c", "p", 1, 1), add("c", "q", 3, 1)}, 2, []string{"c: q x1 = 2.5 EUR 3-3"}},
		{"two carts", []Change{add("b", "p", 1, 1), add("a", "q", 2, 1)}, 0, []string{"a: q x1 = 2.5 EUR 2-2", "b: p x1 = 2.5 EUR 1-1"}},
		{"checkout of a named cart", []Change{add("c", "p", 1, 1), checkout("c", 2, item("p", 3))}, 0, []string{"c: p x3 = 7.5 EUR 2-2 checkout"}},
		{"checkout stays on later changes", []Change{checkout("c", 2, item("p", 3)), snap("c", 4, item("p", 1))}, 0, []string{"c: p x1 = 2.5 EUR 4-4 checkout"}},
		{"unnamed checkout goes to the only open cart", []Change{add("c", "p", 1, 1), checkout("", 2, item("p", 3))}, 0, []string{"c: p x3 = 7.5 EUR 2-2 checkout"}},
		{"and follows its later removal", []Change{add("c", "p", 1, 1), checkout("", 2, item("p", 1)), remove("c", "p", 3, 1)}, 0, nil},
		{"and its later clearing", []Change{add("c", "p", 1, 1), checkout("", 2, item("p", 1)), snap("c", 3)}, 0, nil},
		{"a cart emptied before is none it can be", []Change{add("a", "p", 1, 1), snap("a", 2), add("c", "p", 3, 1), checkout("", 4, item("p", 2))}, 0, []string{"c: p x2 = 5 EUR 4-4 checkout"}},
		{"unnamed checkout without carts", []Change{checkout("", 2, item("p", 3))}, 0, []string{": p x3 = 7.5 EUR 2-2 checkout"}},
		{"unnamed checkout among two carts", []Change{add("a", "q", 1, 1), add("b", "p", 1, 1), checkout("", 2, item("p", 1))}, 0,
			[]string{": p x1 = 2.5 EUR 2-2 checkout", "a: q x1 = 2.5 EUR 1-1", "b: p x1 = 2.5 EUR 1-1"}},
		{"unnamed checkout, bought", []Change{add("c", "p", 1, 1), checkout("", 2, item("p", 3))}, 3, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var c Carts
			for _, ch := range tc.changes {
				c.Apply(ch)
			}
			if tc.bought > 0 {
				c.Bought(at(tc.bought))
				require.Equal(t, at(tc.bought), c.BoughtUntil())
			}
			var got []string
			for _, o := range c.Open() {
				got = append(got, describe(o))
			}
			require.Equal(t, tc.want, got)
		})
	}
}

func describe(c Cart) string {
	s := c.ID + ":"
	for _, l := range c.Lines {
		s += fmt.Sprintf(" %s x%s", l.ProductID, l.Quantity)
	}
	s += fmt.Sprintf(" = %s %s %d-%d", c.Value[c.Currency], c.Currency,
		int(c.FirstActivity.Sub(base).Seconds()), int(c.LastActivity.Sub(base).Seconds()))
	if c.Checkout {
		s += " checkout"
	}
	return s
}

func TestTheLastAdditionGivesPriceAndTexts(t *testing.T) {
	var c Carts
	dear, cheap := item("p", 1), item("p", 1)
	dear.Price, cheap.Price, cheap.Name = 1_000_000, 10_000, "on offer"
	c.Apply(Change{Kind: Add, Time: at(2), id: 2, lines: []line{cheap}})
	c.Apply(Change{Kind: Add, Time: at(1), id: 1, lines: []line{dear}})
	got := c.Open()[0]
	require.Equal(t, "on offer", got.Lines[0].Name)
	require.Equal(t, "2", got.Value["EUR"].String())
	require.Equal(t, "2", got.Items().String())
}
