package commerce

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/packed"
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

func item(product string, quantity int64) Item {
	return Item{ProductID: product, Name: "name of " + product, Price: 25_000, Quantity: quantity * 10_000, Currency: "EUR"}
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
		lines := func(least, most int) []Item {
			return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Item {
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

// state is c as it is stored, without Forgotten, which does not converge.
func state(c *Carts) string {
	same := *c
	same.Forgotten = false
	return string(same.AppendPacked(nil))
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
	before := state(&right)
	left.Merge(right)
	require.Equal(t, before, state(&right), "Merge changed what it merged from")
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
		require.Equal(t, state(&want), state(&got))
		require.Equal(t, want.Open(), got.Open())

		r := packed.ReadShared(got.AppendPacked(nil))
		var back, old Carts
		back.ReadPacked(&r)
		require.NoError(t, r.Err())
		require.Zero(t, r.Left())
		require.Equal(t, got.AppendPacked(nil), back.AppendPacked(nil))
		require.Equal(t, got.Open(), back.Open())
		require.NoError(t, json.Unmarshal(version1(t, &got), &old))
		require.Equal(t, state(&got), state(&old), "and from version 1")
	})
}

func TestCartsConvergeAtTheCapOfOperations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(MaxOps-3, MaxOps+20).Draw(t, "n")
		steps := make([]step, 0, n+1)
		for i := range n {
			steps = append(steps, step{change: Change{Kind: Add, Time: at(i), id: opID(i), lines: []Item{item(fmt.Sprint("p", i%7), 1)}}})
		}
		if rapid.Bool().Draw(t, "snapshot") {
			s := rapid.IntRange(0, n).Draw(t, "when")
			steps = append(steps, step{change: Change{Kind: Snapshot, Time: at(s), id: 77, lines: []Item{item("s", 2)}}})
		}
		var want Carts
		for _, s := range steps {
			s.do(&want)
		}
		got := tree(t, shuffled(t, steps))
		require.Equal(t, state(&want), state(&got))
		size := 0
		for _, p := range got.byID[0].Ops {
			size += len(p.Lines)
		}
		require.LessOrEqual(t, size, MaxOps)
		require.Equal(t, len(got.byID[0].Ops) < n && got.byID[0].Snap == nil, got.Forgotten && got.byID[0].Snap == nil, "told")
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
			require.Greater(t, c.FirstActivity, when.UnixMilli())
		}
	})
}

func TestCartsStayBounded(t *testing.T) {
	var c Carts
	for i := range 3 * MaxCarts {
		c.Apply(Change{CartID: fmt.Sprint("cart ", i), Kind: Add, Time: at(i), id: opID(i), lines: []Item{item("p", 1)}})
	}
	require.Len(t, c.Open(), MaxCarts)
	_, stays := c.find(fmt.Sprint("cart ", 3*MaxCarts-1))
	require.True(t, stays, "the latest stay")
	require.True(t, c.Forgotten)
}

func TestShrinkLeavesOutWhatIsMissedLeast(t *testing.T) {
	var c Carts
	c.Bought(at(-9))
	rich := item("p", 2)
	rich.Name, rich.URL = "a name", "https://x"
	c.Apply(Change{CartID: "old", Kind: Add, Time: at(1), id: 1, lines: []Item{rich}})
	c.Apply(Change{CartID: "new", Kind: Snapshot, Time: at(2), id: 2, lines: []Item{rich}})
	c.Apply(Change{CartID: "new", Kind: Add, Time: at(3), id: 3, lines: []Item{rich}})
	c.Apply(Change{Checkout: true, Kind: Snapshot, Time: at(3), id: 3, lines: []Item{rich}})
	whole := state(&c)
	var shared Carts
	shared.Merge(c)
	size := len(whole)
	for step, check := range []func(){
		func() { require.Equal(t, "new", c.byID[0].ID) },
		func() { require.Nil(t, c.Unnamed) },
		func() {
			require.Empty(t, c.Open()[0].Items[0].Name)
			require.Equal(t, "10.0000", string(c.Open()[0].Value()[0].Amount.AppendMoney(nil)), "what it is worth stays")
			require.Equal(t, "a name", rich.Name)
			require.Equal(t, whole, state(&shared), "others that share its memory keep their own")
		},
		func() { require.Empty(t, c.byID) },
	} {
		require.True(t, c.Shrink(), step)
		require.True(t, c.Forgotten)
		check()
		require.Less(t, len(state(&c)), size)
		size = len(state(&c))
	}
	require.False(t, c.Shrink())
	require.Equal(t, at(-9), c.BoughtUntil(), "a purchase is not forgotten")
}

// version1 is c as the first version of states had it.
func version1(t require.TestingT, c *Carts) []byte {
	byID := map[string]*cart{}
	for i := range c.byID {
		byID[c.byID[i].ID] = &c.byID[i]
	}
	b, err := json.Marshal(struct {
		Until    int64            `json:"b,omitempty"`
		ByID     map[string]*cart `json:"c,omitempty"`
		Unnamed  *snapshot        `json:"k,omitempty"`
		Checkout int64            `json:"t,omitempty"`
	}{c.Until, byID, c.Unnamed, c.Checkout})
	require.NoError(t, err)
	return b
}

// FuzzReadPacked: garbage is refused or read, and what was read can be stored.
func FuzzReadPacked(f *testing.F) {
	var c Carts
	c.Apply(Change{CartID: "c", Kind: Add, Time: at(1), id: 1, lines: []Item{item("p", 1), item("q", 30_000)}})
	c.Apply(Change{Checkout: true, Kind: Snapshot, Time: at(3), id: 3, lines: []Item{item("p", 1)}})
	f.Add(c.AppendPacked(nil))
	f.Add((&Carts{}).AppendPacked(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := packed.ReadShared(b)
		var c, again Carts
		if c.ReadPacked(&r); r.Err() != nil {
			return
		}
		c.Open()
		r = packed.ReadShared(c.AppendPacked(nil))
		again.ReadPacked(&r)
		if r.Err() != nil || !bytes.Equal(c.AppendPacked(nil), again.AppendPacked(nil)) {
			t.Fatalf("%x is read as %+v and that as %+v: %v", b, c, again, r.Err())
		}
	})
}

func TestOpen(t *testing.T) {
	add := func(cart, product string, n int, q int64) Change {
		return Change{CartID: cart, Kind: Add, Time: at(n), id: opID(n), lines: []Item{item(product, q)}}
	}
	remove := func(cart, product string, n int, q int64) Change {
		ch := add(cart, product, n, q)
		ch.Kind = Remove
		return ch
	}
	snap := func(cart string, n int, ls ...Item) Change {
		return Change{CartID: cart, Kind: Snapshot, Time: at(n), id: opID(n), lines: ls}
	}
	checkout := func(cart string, n int, ls ...Item) Change {
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
				got = append(got, describe(o.Cart()))
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
	c.Apply(Change{Kind: Add, Time: at(2), id: 2, lines: []Item{cheap}})
	c.Apply(Change{Kind: Add, Time: at(1), id: 1, lines: []Item{dear}})
	got := c.Open()[0]
	require.Equal(t, "on offer", got.Items[0].Name)
	whole := got.Cart()
	require.Equal(t, "2", whole.Value["EUR"].String())
	require.Equal(t, "2", whole.Items().String())
}
