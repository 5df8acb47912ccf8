package identity

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/weft-cdp/weft/pkg/event"
)

// The law of a simulation: limits, windows, trust and caps, written down once more and as plainly as can be, to hold
// against what the resolvers do. It is asked after every single write.

// regime says what a schedule is judged by.
type regime int

const (
	free    regime = iota // nothing: the people are the connected components
	limited               // limits, windows, trust and caps, by the seed
	parting               // nothing, and people are split, released, cut, blocked and forgotten meanwhile
	strict                // both
)

func (r regime) undoes() bool { return r >= parting }

// law is what a schedule is judged by, and what the oracle remembers for it.
type law struct {
	regime  regime
	policy  Policy
	types   map[byte]*Type
	perType int
	span    time.Duration // of the causes' times
	records map[string]simRecord
	asides  map[string][]SetAside // record, by its cause, to what it was published without
	now     map[Node]*value       // the graph as it is
	days    map[Node]uint16       // the day that stands with a node for ever
	degrees map[Node]int          // links that name a node
	unions  int
	dated   int            // days given before a join
	gaveUp  int            // joins that were given up
	refused map[Reason]int // in the decisions that were published
	end     map[Node]Node
}

var simEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newLaw(rng *rand.Rand, r regime) law {
	l := law{
		regime: r, perType: 3, records: map[string]simRecord{}, asides: map[string][]SetAside{}, now: map[Node]*value{}, days: map[Node]uint16{},
		degrees: map[Node]int{}, refused: map[Reason]int{}, end: map[Node]Node{},
	}
	if r == free || r == parting {
		return l
	}
	week := 7 * 24 * time.Hour
	l.span = []time.Duration{week / 2, 3 * week}[rng.IntN(2)]
	limit := func(most int) Limit {
		return Limit{Values: rng.IntN(most + 1), Per: []time.Duration{0, week, week, 30 * 24 * time.Hour}[rng.IntN(4)]}
	}
	names := []string{event.UserID, event.Email, "loyalty_id", event.AnonymousID}
	l.types = map[byte]*Type{rankPart: {Name: TypePart}}
	for i, rank := range []byte{0x10, 0x20, rankOther, 0xe0} {
		l.types[rank] = &Type{Name: names[i], Rank: rank, Priority: i + 1, Limit: limit(2), Known: i < 2, Device: i == 3}
	}
	if rng.IntN(4) == 0 { // priority need not follow rank
		l.types[0x10].Priority, l.types[0xe0].Priority = 4, 1
	}
	l.policy.TypeOf = func(n Node) *Type { return l.types[n[0]] }
	l.policy.Claims = []Claims{ClaimsNew, ClaimsNever}[rng.IntN(2)]
	if rng.IntN(3) == 0 {
		l.policy.Caps = Caps{Members: 2 + rng.IntN(4), Merges: rng.IntN(3), Degree: rng.IntN(4)}
	}
	if rng.IntN(12) == 0 {
		l.perType = 9
	}
	return l
}

// time is when a record was received: they come in any order.
func (l *law) time(rng *rand.Rand) time.Time {
	if l.span == 0 {
		return simEpoch
	}
	return simEpoch.Add(time.Duration(rng.Int64N(int64(l.span)))).Truncate(time.Millisecond)
}

func isAside(aside []SetAside, n Node) bool {
	return slices.ContainsFunc(aside, func(a SetAside) bool { return a.Identifier.Node == n })
}

// today is the day of a time, counted anew.
func today(t time.Time) uint16 {
	return uint16(t.Unix()/86400 - time.Date(2019, 12, 31, 0, 0, 0, 0, time.UTC).Unix()/86400) //nolint:gosec // a test
}

// watch looks at a write.
func (s *sim) watch(n Node, v *value) {
	old, known := s.now[n]
	if !known {
		old = absent(n)
	}
	s.now[n] = v
	for i := range v.size() {
		m, d := v.member(i), v.day(i)
		if known := s.days[m]; known != 0 && d != 0 && d != known {
			s.violate("the day of %s changes", m)
		}
		if d != 0 {
			s.days[m] = d
		}
	}
	s.noteBehind(n, old, v)
	switch {
	case v.order != nil || v.parted || old.order != nil || n[0] == rankPart && !known:
		s.watchSplit(n, old, v)
	case v.linked && !old.linked:
		s.unions++
		s.checkLinked(n, v)
	case old.joining && !v.joining:
		s.gaveUp++
	case v.size() > old.size():
		s.checkCommit(n, old, v)
	case old.day(0) != v.day(0) && !v.joining && !v.linked:
		s.dated++
	}
	s.checkLists()
}

// checkLinked: who is linked is listed in the component that the link leads to.
func (s *sim) checkLinked(n Node, v *value) {
	if r := s.now[v.link]; r == nil || !r.lists(&v.group) {
		s.violate("%s is linked under %s, which does not list it", n, v.link)
	}
}

// checkLists: forward pointers have no cycle, and nobody who stands on his own is on another one's list. This is what a
// join that one commits and another gives up would break.
func (s *sim) checkLists() {
	for n, v := range s.now {
		if v.linked {
			steps := 0
			for at := v; at.linked; steps++ {
				if steps > len(s.now) {
					s.violate("a cycle at %s", n)
					return
				}
				if at = s.now[at.parent]; at == nil {
					break
				}
			}
			continue
		}
		if v.joining || v.order != nil {
			continue
		}
		for o, w := range s.now {
			if o != n && !w.linked && !w.joining && w.has(n) {
				s.violate("%s stands on its own, and on the list of %s", n, o)
			}
		}
	}
}

// checkCommit: a root has taken members in. Whose they were, and whether the law allows it.
func (s *sim) checkCommit(root Node, old, v *value) {
	for l, j := range s.now {
		if !j.joining || !v.lists(&j.group) || old.lists(&j.group) || old.size()+j.size() != v.size() {
			continue
		}
		rec, ok := s.records[j.cause.Source]
		if !ok {
			s.violate("%s joins by a cause that is no record's", l)
			return
		}
		for _, e := range j.evidence {
			if !slices.ContainsFunc(rec.ids, func(id Identifier) bool { return id.Node == e.Node }) {
				s.violate("the evidence of %s is not in its record", l)
			}
			s.degrees[e.Node]++
		}
		s.checkCut(root, l)
		s.unite(root, l)
		if why := s.breaks(nodes(old), nodes(j), rec, false); why != "" {
			s.violate("%s takes %s in by %s: %s", root, l, rec.cause.Source, why)
		}
		for _, m := range append(nodes(old), nodes(j)...) {
			if at, ok := v.find(m); !ok {
				s.violate("%s loses %s", root, m)
			} else if s.degrees[m] != v.degree(at) && m[0] != rankPart {
				s.violate("%s counts %d links of %s, there are %d", root, v.degree(at), m, s.degrees[m])
			}
		}
		return
	}
	s.violate("%s takes in who does not join it", root)
}

func nodes(v *value) []Node {
	out := make([]Node, v.size())
	for i := range out {
		out[i] = v.member(i)
	}
	return out
}

// breaks says which law one person of a and b breaks, made by a record; its links are counted already. Behind the fact, all
// may have stood in a window then: who was never linked counts as linked today, and may be linked by an earlier record later.
func (s *sim) breaks(a, b []Node, rec simRecord, behind bool) string {
	if s.types == nil {
		return ""
	}
	known := func(ns []Node) bool {
		return slices.ContainsFunc(ns, func(n Node) bool { return s.types[n[0]].Known })
	}
	for rank, typ := range s.types {
		count := func(ns []Node) (n int) {
			for _, x := range ns {
				if x[0] != rank {
					continue
				}
				linked := s.days[x]
				if people(ns) == 1 && linked == 0 {
					linked = today(rec.cause.Time)
				}
				if behind || typ.Limit.Per == 0 || int(linked) > int(today(rec.cause.Time))-int(typ.Limit.Per.Hours()/24) {
					n++
				}
			}
			return n
		}
		if in, out := count(a), count(b); typ.Limit.Values > 0 && in > 0 && out > 0 && in+out > typ.Limit.Values {
			return fmt.Sprintf("%s: %d and %d, limit %+v", typ.Name, in, out, typ.Limit)
		}
	}
	if !rec.trusted && known(a) && known(b) && (s.policy.Claims == ClaimsNever || people(a) > 1 && people(b) > 1) {
		return "an untrusted source joins two known people"
	}
	if rec.operator {
		return ""
	}
	if most := s.policy.Caps.Members; most > 0 && people(a)+people(b) > most {
		return "too many members"
	}
	for _, id := range rec.ids {
		if most := s.policy.Caps.Degree; most > 0 && s.degrees[id.Node] > most {
			return "too many links of one identifier"
		}
	}
	return ""
}

// components are the people in the end: without limits those of the records; with limits those of the merges that were
// published.
func (s *sim) components(all []Identifier) map[Node]Node {
	if s.regime == free {
		return oracle(s.slots, all)
	}
	if s.regime.undoes() {
		return s.people(all)
	}
	root := map[Node]Node{}
	for _, id := range all {
		n := id.Node
		for {
			to, ok := s.published[n]
			if !ok {
				break
			}
			n = to
		}
		root[id.Node] = n
	}
	return root
}

// justify: in the end, whoever was set aside is one person with the rest, by another record, or must still not be; and
// nobody is one person without a record that says so. Merges are counted per person.
func (s *sim) justify() {
	for source, aside := range s.asides {
		rec := s.records[source]
		for _, x := range aside {
			s.refused[x.Reason]++
			mine, its := s.end[s.keys[source]], s.end[x.Identifier.Node]
			if mine == its || x.Reason == ReasonGovernor || s.regime.undoes() { // what was in the way may have been undone since
				continue
			}
			if s.breaks(nodes(s.valueOf(mine)), nodes(s.valueOf(its)), rec, true) == "" {
				s.violate("%s was set aside from record %s for reason %s, and nothing stands against it", x.Identifier.Node, source, x.Reason)
			}
		}
	}
	for n, v := range s.now {
		if v.linked {
			continue
		}
		merges := 0
		for l, w := range s.now {
			if w.linked && !w.parted && s.end[l] == n && w.people() > 1 {
				merges++
			}
		}
		if v.merges != merges {
			s.violate("%s counts %d merges, there were %d", n, v.merges, merges)
		}
		if most := s.policy.Caps.Merges; most > 0 && merges > most && !s.regime.undoes() {
			s.violate("%s was made by %d merges", n, merges)
		}
	}
	if s.regime.undoes() {
		return // checkEvent has looked when it was published
	}
	for _, slot := range s.slots {
		for _, rec := range slot.input {
			for _, id := range rec.ids {
				if !isAside(s.asides[rec.cause.Source], id.Node) && s.end[id.Node] != s.end[rec.ids[s.dearest(rec)].Node] {
					s.violate("record %s carries %s, which is another person", rec.cause.Source, id.Node)
				}
			}
		}
	}
}

// lateJoin: a join may stand until somebody meets it if its announcement landed late, when its record had been published
// without it. Nobody lists the node then.
func (s *sim) lateJoin(v *value) bool {
	aside := s.asides[v.cause.Source]
	if !slices.ContainsFunc(v.evidence, func(id Identifier) bool { return isAside(aside, id.Node) }) {
		return false
	}
	for _, w := range s.now {
		if !w.joining && !w.linked && w.has(v.member(0)) {
			return false
		}
	}
	return true
}

func (s *sim) valueOf(n Node) *value {
	if v := s.now[n]; v != nil {
		return v
	}
	return absent(n)
}

// dearest is the identifier of a record that stays whatever happens.
func (s *sim) dearest(rec simRecord) int {
	for i, id := range rec.ids {
		if !isAside(s.asides[rec.cause.Source], id.Node) {
			return i
		}
	}
	return 0
}
