package demo

import (
	"container/heap"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/services/weft/audit"
)

// paper is Weft on paper: the rules of identity and journeys, one event after the other, with a clock that
// only this test moves. Nothing is ever late.
type paper struct {
	testing.TB
	plan     Plan
	till     *event.Mapping
	decider  *journey.Decider
	now      time.Time
	agenda   agenda
	visitors map[string]*Visitor // by address
	part     map[string]int      // the part that the next mail begins
	graph    components
	states   map[string]*journey.State // by root
	ledger   *Ledger
	facts    Facts
	mails    []Mail
	orders   map[string]int64
	lines    audit.Line
}

func newPaper(t testing.TB, plan Plan, visitors []Visitor) *paper {
	t.Helper()
	text, err := Journey(plan.Delay)
	require.NoError(t, err)
	j, faults := journey.Parse(journeyFile, text)
	require.Empty(t, faults)
	require.Equal(t, plan.Delay, j.Delay)
	till, err := event.CompileMapping(TillInlet().Mapping, nil)
	require.NoError(t, err)
	list := SuppressionList(visitors)
	p := &paper{
		TB: t, plan: plan, till: till, now: time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC), visitors: map[string]*Visitor{}, part: map[string]int{},
		graph: components{}, states: map[string]*journey.State{}, ledger: NewLedger(), orders: map[string]int64{},
		decider: &journey.Decider{
			Journeys:    []*journey.Journey{j},
			Version:     func(string, string) (*journey.Journey, error) { return j, nil },
			Suppressed:  func(a string) bool { return slices.Contains(list, a) },
			Channels:    map[string]bool{"email": true},
			Unsubscribe: func(*journey.Request) string { return "http://door/u" },
		},
	}
	for i := range visitors {
		v := &visitors[i]
		if v.Email != "" {
			p.visitors[v.Email] = v
			p.part[v.Email] = 1
		}
		p.begin(v, 0, p.now.Add(v.Start))
	}
	return p
}

func (p *paper) begin(v *Visitor, part int, at time.Time) {
	for i := range v.Parts[part].Actions {
		a := &v.Parts[part].Actions[i]
		heap.Push(&p.agenda, item{due: at.Add(a.At), visitor: v, action: a})
	}
}

// play goes through time until nothing is left to happen.
func (p *paper) play() {
	for {
		root, due := p.nextTimer()
		switch {
		case len(p.agenda) == 0 && root == "":
			return
		case len(p.agenda) > 0 && (root == "" || p.agenda[0].due.Before(due)):
			it := heap.Pop(&p.agenda).(item)
			p.now = it.due
			p.act(it.visitor, it.action)
		default:
			if due.After(p.now) {
				p.now = due
			}
			p.take(p.decider.Fire(root, p.states[root], p.now))
		}
	}
}

func (p *paper) nextTimer() (root string, due time.Time) {
	for r, s := range p.states {
		if at, ok := s.Due(); ok && (root == "" || at.Before(due) || at.Equal(due) && r < root) {
			root, due = r, at
		}
	}
	return root, due
}

func (p *paper) act(v *Visitor, a *Action) {
	p.ledger.did(a, p.now)
	p.ledger.acked([]*Action{a}, p.now.Add(time.Millisecond), false, 0)
	if a.Resend {
		p.ledger.acked([]*Action{a}, p.now.Add(time.Millisecond), true, 0)
		p.lines.Accepted++
		p.lines.Duplicate++
	}
	p.lines.Accepted++
	e := p.event(v, a)
	if e == nil {
		require.True(p, a.Broken, "story %q: %v", v.Story, a.Body)
		p.lines.Rejected++
		return
	}
	require.False(p, a.Broken, "story %q: %v", v.Story, a.Body)
	p.lines.Stored++
	var ids []string
	for _, id := range e.Identifiers() {
		ids = append(ids, id.Type+":"+strings.ToLower(id.Value))
	}
	require.ElementsMatch(p, a.Identifiers, ids, "story %q: %v", v.Story, a.Body)
	root := p.resolve(ids)
	p.take(p.decider.Observe(root, p.states[root], e, p.now))
	if a.Order != "" {
		p.orders[a.Order] = a.Cents
	}
}

// event is what the doors make of an action; nil: it is rejected.
func (p *paper) event(v *Visitor, a *Action) *event.Event {
	body, err := a.encode(p.now)
	require.NoError(p, err)
	switch {
	case a.Link:
		body = fmt.Appendf(nil, `{"type":"track","event":"Unsubscribed","messageId":"u","context":{"externalIds":[{"id":%q,"type":"email"}]},"properties":{"channel":"email"}}`, v.Email)
	case a.Channel == Till:
		body, err = p.till.Event(body, nil)
		require.NoError(p, err)
	}
	meta := event.Meta{Source: string(a.Channel), Brand: "main", MessageID: a.ID, ReceivedAt: p.now}
	e, err := event.Decode(body, meta)
	if err != nil || e.Validate() != nil {
		return nil
	}
	e.Historical = p.now.Sub(e.Time) > config.Defaults().Collector.HistoricalAfter
	return e
}

// resolve joins identifiers and the states of those who turn out to be one person.
func (p *paper) resolve(ids []string) string {
	var roots []string
	for _, id := range ids {
		if _, ok := p.graph[id]; !ok {
			p.graph[id] = id
			p.states[id] = &journey.State{}
		}
		if r := p.graph.root(id); !slices.Contains(roots, r) {
			roots = append(roots, r)
		}
	}
	for _, loser := range roots[1:] {
		p.graph[loser] = roots[0]
		p.facts.Joins++
		p.take(p.decider.Merge(roots[0], p.states[roots[0]], *p.states[loser], p.now))
		delete(p.states, loser)
	}
	return roots[0]
}

func (p *paper) take(res journey.Result) {
	require.NoError(p, res.Unreadable)
	for _, r := range res.Receipts {
		p.receipt(r)
	}
	for i := range res.Requests {
		r := &res.Requests[i]
		at := p.now.Add(300 * time.Millisecond)
		p.receipt(r.Settle(journey.Delivered, journey.ReasonSent, "", at.UnixMilli()))
		p.mails = append(p.mails, Mail{To: r.To, Text: r.Text, Subject: r.Subject, HTML: r.HTML != "", Unsubscribe: "http://door/u"})
		if v := p.visitors[r.To]; p.part[r.To] < len(v.Parts) {
			p.begin(v, p.part[r.To], at)
			p.part[r.To]++
		}
	}
}

func (p *paper) receipt(r journey.Receipt) {
	p.facts.Receipts = append(p.facts.Receipts, receipt{
		Cart: r.Cart.ID, Outcome: r.Outcome, Reason: r.Reason, Due: time.UnixMilli(r.DueAt), Settled: time.UnixMilli(r.SettledAt),
	})
}

// results is what ClickHouse would say.
func (p *paper) results(truth Truth) Facts {
	f := p.facts
	p.lines.Key = audit.Key{Brand: "main", Source: "all", Minute: p.now.Truncate(time.Minute)}
	f.Audit = audit.Report{Lines: []audit.Line{p.lines}, Doubles: []warehouse.Double{}}
	f.People = uint64(p.graph.count())
	var cents int64
	for _, c := range p.orders {
		cents += c
	}
	money := Money(cents) + "00"
	f.Profiles = profiles{People: f.People, Orders: uint64(len(p.orders)), Revenue: money}
	f.Orders = orders{Orders: uint64(len(p.orders)), Revenue: money}
	f.Funnel = []step{{Device: "desktop", Viewed: uint64(truth.ViewedBy), Ordered: 3}}
	f.Recovered = []recovered{{Carts: uint64(truth.Recovered), Revenue: "1.0000"}}
	return f
}
