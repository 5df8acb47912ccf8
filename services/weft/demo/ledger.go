package demo

import (
	"slices"
	"sync"
	"time"
)

// Ledger is what really happened: when each action was done, and when the door or Kafka acknowledged it. It is
// the truth that the report is held against. Safe for concurrent use.
type Ledger struct {
	mu      sync.Mutex
	done    map[*Action]Deed
	resent  int // events that were sent again after they had been acknowledged
	unknown int // events of attempts that nobody answered: they may have been taken, and again by the repetition
	links   int // unsubscribe links used
	missed  []int
}

// Deed is when an action was done.
type Deed struct {
	At    time.Time // by the visitor; its event says so
	Acked time.Time // by the door or Kafka; zero: not yet
}

// NewLedger is empty.
func NewLedger() *Ledger { return &Ledger{done: map[*Action]Deed{}} }

func (l *Ledger) did(a *Action, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done[a] = Deed{At: at}
}

// acked notes an acknowledgement; again says that it was of a repetition on purpose.
func (l *Ledger) acked(actions []*Action, at time.Time, again bool, unknown int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unknown += unknown
	for _, a := range actions {
		if again {
			l.resent++
			continue
		}
		d := l.done[a]
		d.Acked = at
		l.done[a] = d
		if a.Link {
			l.links++
		}
	}
}

// miss notes a visitor who waited for a mail that never came.
func (l *Ledger) miss(visitor int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.missed = append(l.missed, visitor)
}

// deed is what is known of an action; false: it was not done, or nobody acknowledged it.
func (l *Ledger) deed(a *Action) (Deed, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d, ok := l.done[a]
	return d, ok && !d.Acked.IsZero()
}

// counts are those of progress lines.
func (l *Ledger) counts() (done, resent int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.done), l.resent
}

// eachAction calls f for every action of a visitor, in order.
func (v *Visitor) eachAction(f func(*Action)) {
	for i := range v.Parts {
		for j := range v.Parts[i].Actions {
			f(&v.Parts[i].Actions[j])
		}
	}
}

// Truth is what must be found in Weft.
type Truth struct {
	Visitors    int
	Events      int // acknowledged, each once, links used included
	Rejected    int // of these: what nobody can make an event of
	Resent      int
	Unknown     int
	Nodes       int // identifiers seen
	People      int
	Orders      int
	Cents       int64
	ViewedBy    int // people who looked at a product
	Recovered   int
	Carts       map[string]CartTruth
	MailsTo     map[string]int // by address
	Close       int            // carts bought elsewhere within Margin of their reminder
	Unanswered  []int          // visitors whose mail never came
	NeverAcked  int            // actions that were not acknowledged
	SampleKnown string         // address of somebody with an order and several devices, to explore
}

// CartTruth is how a cart must have ended.
type CartTruth struct {
	Cart
	Visitor int
	Story   string
	Email   string
	Due     time.Time // when its reminder was due: the delay after the visitor's last activity before it
	Bought  time.Time // when an order that covers it was acknowledged; zero: never, or only after its mail
	// Late says that something the visitor did was acknowledged only after the reminder had been due by what was
	// known until then, because this machine was busy: then a mail may be right, and so may none.
	Late bool
}

// Truth adds the ledger up over the visitors.
func (l *Ledger) Truth(visitors []Visitor, delay time.Duration) Truth {
	t := Truth{Visitors: len(visitors), Carts: map[string]CartTruth{}, MailsTo: map[string]int{}}
	graph := components{}
	orders := map[string]int64{}
	viewers := map[string]bool{}
	for i := range visitors {
		v := &visitors[i]
		viewer := ""
		v.eachAction(func(a *Action) {
			if _, ok := l.deed(a); !ok {
				t.NeverAcked++
				return
			}
			t.Events++
			if a.Broken {
				t.Rejected++
			}
			graph.join(a.Identifiers)
			if a.Order != "" {
				orders[a.Order] = a.Cents
			}
			if a.Viewed {
				viewer = a.Identifiers[0]
			}
		})
		if viewer != "" {
			viewers[viewer] = true
		}
		for _, c := range v.Carts {
			ct := l.cart(v, c, delay)
			t.Carts[c.ID] = ct
			if c.Elsewhere {
				t.Close++
			}
			if c.Want == Sent && !v.OnList {
				t.MailsTo[v.Email]++
			}
			if c.Recovered && !slices.Contains(l.missed, v.N) {
				t.Recovered++
			}
		}
		if t.SampleKnown == "" && v.Story == storyOneTap {
			t.SampleKnown = v.Email
		}
	}
	t.ViewedBy = graph.distinct(viewers)
	t.Nodes, t.People = len(graph), graph.count()
	t.Orders = len(orders)
	for _, cents := range orders {
		t.Cents += cents
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Resent, t.Unknown, t.Unanswered = l.resent, l.unknown, slices.Clone(l.missed)
	return t
}

// cart finds out when a cart was due and whether it was bought before.
func (l *Ledger) cart(v *Visitor, c Cart, delay time.Duration) CartTruth {
	ct := CartTruth{Cart: c, Visitor: v.N, Story: v.Story, Email: v.Email}
	part := -1 // the one that the cart was filled in; later ones answer its mail
	for i := range v.Parts {
		for j := range v.Parts[i].Actions {
			if v.Parts[i].Actions[j].Cart == c.ID && part < 0 {
				part = i
			}
		}
	}
	if part < 0 {
		return ct
	}
	var last time.Time // of the activity so far
	begun := false     // the cart has something in it
	actions := v.Parts[part].Actions
	for j := range actions {
		a := &actions[j]
		d, ok := l.deed(a)
		if !ok {
			continue
		}
		if begun && ct.Bought.IsZero() && !d.Acked.Before(last.Add(delay)) {
			ct.Late = true
		}
		begun = begun || a.Cart == c.ID
		if a.Activity && d.At.After(last) {
			last = d.At
		}
		if begun && a.Order != "" && ct.Bought.IsZero() {
			ct.Bought = d.Acked
		}
	}
	ct.Due = last.Add(delay)
	return ct
}

// components is union-find over identifiers.
type components map[string]string

func (g components) root(id string) string {
	for g[id] != id {
		g[id] = g[g[id]]
		id = g[id]
	}
	return id
}

func (g components) join(ids []string) {
	for _, id := range ids {
		if _, ok := g[id]; !ok {
			g[id] = id
		}
		g[g.root(id)] = g.root(ids[0])
	}
}

func (g components) count() int {
	n := 0
	for id, parent := range g {
		if id == parent {
			n++
		}
	}
	return n
}

// distinct is how many components ids lie in.
func (g components) distinct(ids map[string]bool) int {
	roots := map[string]bool{}
	for id := range ids {
		roots[g.root(id)] = true
	}
	return len(roots)
}
