package oracle

import (
	"slices"
	"strings"

	"github.com/weft-cdp/weft/scripts/chaos/ledger"
	"github.com/weft-cdp/weft/scripts/chaos/load"
	"github.com/weft-cdp/weft/services/weft/demo"
)

// deed is an action that Weft has, and how often.
type deed struct {
	*demo.Action
	id    string // in the ledger
	count int    // records of it that count as events
}

// Judge compares facts with the ledger of a run that has come to rest.
func Judge(visitors []demo.Visitor, b *ledger.Book, f *Facts) *Verdict {
	v := newVerdict()
	j := &judge{Verdict: v, visitors: visitors, book: b, facts: f, people: map[string]string{}}
	j.events()
	j.persons()
	j.carts()
	return v
}

type judge struct {
	*Verdict
	visitors []demo.Visitor
	book     *ledger.Book
	facts    *Facts
	deeds    []deed
	people   map[string]string // by action: the person whom Weft gave its event to
}

// each calls f for every action of every visitor.
func (j *judge) each(f func(v *demo.Visitor, id string, a *demo.Action)) {
	for i := range j.visitors {
		v := &j.visitors[i]
		for p := range v.Parts {
			for n := range v.Parts[p].Actions {
				f(v, load.ID(v.N, p, n), &v.Parts[p].Actions[n])
			}
		}
	}
}

// events holds rows against acknowledged ids: P2, and P3 where something was sent twice.
func (j *judge) events() {
	rows := map[string][]row{}
	for _, r := range j.facts.Rows {
		rows[r.Message] = append(rows[r.Message], r)
	}
	rejected := map[string]int{}
	for _, r := range j.facts.Rejected {
		rejected[r.Message]++
		rejected[r.Origin]++
		if r.Reason == "" {
			j.Violate("P2", "a rejected record from %s has no reason", r.Origin)
		}
	}
	sales := map[string][]string{}
	for _, s := range j.facts.Sales {
		sales[s.action] = append(sales[s.action], s.id)
	}
	known := map[string]bool{}
	j.each(func(_ *demo.Visitor, id string, a *demo.Action) {
		_, acked := j.book.Acked[id]
		if acked {
			j.Events++
		}
		messages := []string{a.ID}
		if a.Channel == demo.Till {
			messages = sales[id]
			if acked && len(messages) == 0 {
				j.Violate("P1", "sale %s was acknowledged by Kafka and is not in %s", id, demo.TillTopic)
			}
		}
		count := 0
		for _, m := range messages {
			known[m] = true
			got := rows[m]
			if len(got) > 0 {
				j.people[id] = got[0].Person
			}
			n := j.one(id, m, a, acked || a.Channel == demo.Till, len(got), rejected[m])
			count += n
		}
		if count > 0 {
			j.deeds = append(j.deeds, deed{a, id, count})
		}
	})
	for m, got := range rows {
		if !known[m] {
			j.Violate("P2", "event %s of %s is stored %d times and was never sent", m, got[0].Source, len(got))
		}
	}
	for _, d := range j.facts.Doubles {
		j.Violate("P2", "%s has %d rows of %s partition %d offset %d", d.Table, d.Rows, d.Topic, d.Partition, d.Offset)
	}
}

// one judges one message and returns how many events it is.
func (j *judge) one(id, message string, a *demo.Action, must bool, stored, rejected int) int {
	j.looked("P2")
	if a.Resend {
		j.looked("P3")
	}
	switch {
	case a.Broken && stored > 0:
		j.Violate("P2", "%s (%s) is no event and is stored %d times", id, message, stored)
	case a.Broken && must && rejected == 0:
		j.Violate("P2", "%s (%s) was acknowledged and is not among the rejected", id, message)
	case a.Broken:
	case stored > 1:
		promise := "P2"
		if a.Resend {
			promise = "P3"
		}
		j.Violate(promise, "%s (%s) is stored %d times", id, message, stored)
		return 1
	case stored == 1:
		return 1
	case must && rejected > 0:
		j.Violate("P2", "%s (%s) is a good event and was rejected", id, message)
	case must:
		j.Violate("P2", "%s (%s) was acknowledged and is lost: neither stored nor rejected", id, message)
	}
	return 0
}

// want is what a person's profile must say.
type want struct {
	ids     map[string]bool // persons whom Weft gave the events to
	events  int64
	orders  map[string]int64 // cents
	example string
}

// persons holds components, profiles and merges against the links in the ledger: P4 and P5.
func (j *judge) persons() {
	graph := components{}
	for _, d := range j.deeds {
		graph.join(d.Identifiers)
	}
	wanted := map[string]*want{}
	owner := map[string]string{} // of a person in Weft: the component
	for _, d := range j.deeds {
		root := graph.root(d.Identifiers[0])
		w := wanted[root]
		if w == nil {
			w = &want{ids: map[string]bool{}, orders: map[string]int64{}, example: d.Identifiers[0]}
			wanted[root] = w
		}
		w.events += int64(d.count)
		if d.Order != "" {
			w.orders[d.Order] = d.Cents
		}
		person := j.people[d.id]
		w.ids[person] = true
		if before, taken := owner[person]; taken && before != root {
			j.Violate("P4", "%s and %s are one person (%s) and were never linked", before, root, person)
		}
		owner[person] = root
	}
	j.People = len(wanted)
	for _, w := range wanted {
		j.looked("P4")
		if len(w.ids) != 1 {
			j.Violate("P4", "%s is %d persons: %q", w.example, len(w.ids), keys(w.ids))
			continue
		}
		j.profile(w, keys(w.ids)[0])
	}
	j.Compared["P5"] += len(graph) - len(wanted)
	if j.facts.Bare > 0 {
		j.Violate("P5", "%d merges have no evidence", j.facts.Bare)
	}
}

// profile compares one person's counters: each event folded once, each order once.
func (j *judge) profile(w *want, person string) {
	j.looked("P3")
	p, ok := j.facts.Profiles[person]
	if !ok {
		j.Violate("P3", "%s (%s) has no profile", w.example, person)
		return
	}
	if p.Counts.Events != w.events {
		j.Violate("P3", "the profile of %s (%s) counts %d events, the ledger %d", w.example, person, p.Counts.Events, w.events)
	}
	var cents int64
	for _, c := range w.orders {
		cents += c
	}
	if p.Orders != int64(len(w.orders)) {
		j.Violate("P3", "the profile of %s (%s) counts %d orders, the ledger %d", w.example, person, p.Orders, len(w.orders))
	}
	if got := amount(p.Revenue[demo.Currency]); got != demo.Money(cents) {
		j.Violate("P3", "the profile of %s (%s) has revenue %s, the ledger %s", w.example, person, got, demo.Money(cents))
	}
}

// amount writes a decimal with two places, as demo.Money does; what has more stays as it is.
func amount(text string) string {
	whole, frac, _ := strings.Cut(text, ".")
	if whole == "" {
		whole = "0"
	}
	for len(frac) > 2 && frac[len(frac)-1] == '0' {
		frac = frac[:len(frac)-1]
	}
	for len(frac) < 2 {
		frac += "0"
	}
	return whole + "." + frac
}

func keys(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
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
