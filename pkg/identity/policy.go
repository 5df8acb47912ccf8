package identity

import (
	"slices"
	"time"
)

// Reason says why an identifier of a record was set aside: the record was resolved without it. The texts are a closed
// set, fit for a metric's label.
type Reason string

// Why identifiers are set aside.
const (
	ReasonLimit        Reason = "limit"         // one person would have more values of a type than its limit
	ReasonUntrusted    Reason = "untrusted"     // an untrusted source cannot join two known people
	ReasonGovernor     Reason = "governor"      // a cap: the link is suspended
	ReasonCut          Reason = "cut"           // somebody has said that these are not one person
	ReasonSharedDevice Reason = "shared_device" // a device that several people use joins nobody
	ReasonLoggedOut    Reason = "logged_out"    // a device whose owner has logged out, and nobody has logged in again
	ReasonWeak         Reason = "weak"          // its type only adds evidence
	ReasonBlocked      Reason = "blocked"       // somebody has said that it counts for nobody
)

// Reasons lists every reason there is.
func Reasons() []Reason {
	return []Reason{
		ReasonLimit, ReasonUntrusted, ReasonGovernor, ReasonCut, ReasonSharedDevice, ReasonLoggedOut, ReasonWeak, ReasonBlocked,
	}
}

// Claims says what a source that is not trusted may say of a known identifier that was never linked.
type Claims string

// Values of Claims.
const (
	// ClaimsNew lets it be attached to one person, known or not: whoever names it first has it.
	ClaimsNew Claims = "new"
	// ClaimsNever does not: such a source joins one known identifier with unknown ones, and never two known ones.
	ClaimsNever Claims = "never"
)

// Cap names one cap of the governor. The texts are a closed set, fit for a metric's label.
type Cap string

// The caps of the governor.
const (
	CapMembers         Cap = "members_per_person"
	CapMerges          Cap = "merges_per_person"
	CapDegree          Cap = "links_per_identifier"
	CapPerMinute       Cap = "merges_per_minute"
	CapPerMinuteSource Cap = "merges_per_minute_per_source"
)

// AllCaps lists every cap there is.
func AllCaps() []Cap {
	return []Cap{CapMembers, CapMerges, CapDegree, CapPerMinute, CapPerMinuteSource}
}

// Caps are what the governor lets happen; 0: any number.
type Caps struct {
	Members int // identifiers of one person
	Merges  int // of one person: links whose loser was a person of several identifiers already
	Degree  int // links that name one identifier, at most maxDegree
	// Merges of two people of several identifiers each, by the minute in which their causes were received, that this
	// process makes: in all, and of one source.
	PerMinute, PerMinutePerSource int
}

// Policy says what may become one person. The zero Policy lets everything.
//
// What it says of a join must be the same for everybody who may complete it, and once it is no it must stay no: so it
// reads the two components, the cause and the rules, and nothing else, and counts only what grows (see stitch.finish).
type Policy struct {
	TypeOf func(Node) *Type // nil: there are no limits, and nobody is known
	Claims Claims           // empty: ClaimsNew
	Caps   Caps
	// Devices is how shared devices are treated, and wants TypeOf; nil: no device is shared, and nobody logs out.
	Devices *Devices
}

// refusal is why two components must not become one; the zero refusal: they may.
type refusal struct {
	reason Reason
	cap    Cap // reason is ReasonGovernor
}

func (r refusal) refused() bool { return r.reason != "" }

// terms are what a join is judged by, beside the two components.
type terms struct {
	day      uint16 // of the cause
	trusted  bool
	operator bool // caps do not count
	evidence [2]Node
}

// terms are those of the join that v announces.
func (v *value) terms() terms {
	t := terms{day: day(v.cause.Time), trusted: v.trusted, operator: v.operator}
	for i := range min(len(v.evidence), len(t.evidence)) {
		t.evidence[i] = v.evidence[i].Node
	}
	return t
}

// side is one of the components of a join, as it is judged.
type side struct {
	group
	merges     int
	generation uint64
	cuts       []cut
}

func (v *value) side() side {
	return side{group: v.group, merges: v.merges, generation: v.incarnation, cuts: v.cuts}
}

// judge says whether winner and loser, whose root is the later one, may become one person. It is asked with what was read,
// which may be old, and once more with what the commit point replaces.
func (p *Policy) judge(winner, loser side, t terms) refusal {
	if crossesCut(winner, loser) {
		return refusal{reason: ReasonCut}
	}
	if p.TypeOf != nil {
		a, b := p.tally(winner.since(t.day), t.day, nil), p.tally(loser.since(t.day), t.day, &winner.group)
		if a.breaks(&b) {
			return refusal{reason: ReasonLimit}
		}
		if !t.trusted && a.known && b.known && (p.Claims == ClaimsNever || winner.people() > 1 && loser.people() > 1) {
			return refusal{reason: ReasonUntrusted}
		}
	}
	switch c := &p.Caps; {
	case t.operator:
	case c.Members > 0 && winner.people()+loser.people() > c.Members:
		return refusal{ReasonGovernor, CapMembers}
	case c.Merges > 0 && mergesOf(winner, loser) > c.Merges:
		return refusal{ReasonGovernor, CapMerges}
	case c.Degree > 0 && (tooMany(winner, t, c.Degree) || tooMany(loser, t, c.Degree)):
		return refusal{ReasonGovernor, CapDegree}
	}
	return refusal{}
}

// undated says whether the root of a join, never linked yet, must be given its day before anybody joins it: if it counts
// in a window together with the loser's members. Else two joins of different days could find different days there.
func (p *Policy) undated(winner, loser *value) bool {
	at, fresh := winner.fresh()
	if p.TypeOf == nil || !fresh {
		return false
	}
	n := winner.member(at)
	typ := p.TypeOf(n)
	if typ.Limit.Values == 0 || typ.Limit.Per == 0 {
		return false
	}
	for i := range loser.size() {
		if m := loser.member(i); p.TypeOf(m) == typ && kindOf(m, typ) == kindOf(n, typ) {
			return true
		}
	}
	return false
}

// mergesOf is how many merges made what winner and loser become.
func mergesOf(winner, loser side) int {
	n := winner.merges + loser.merges
	if loser.people() > 1 {
		n++
	}
	return n
}

// joined is what winner and loser become.
func joined(winner, loser side, t terms) side {
	out := side{group: union(winner.since(t.day), loser.since(t.day)), merges: mergesOf(winner, loser),
		generation: max(winner.generation, loser.generation)}
	for _, s := range [...]side{winner, loser} {
		for _, n := range t.evidence {
			if s.size() > 1 && s.has(n) {
				out.count(n)
			}
		}
	}
	if len(winner.cuts)+len(loser.cuts) > 0 {
		out.cuts = append(slices.Clone(winner.cuts), loser.cuts...)
		slices.SortFunc(out.cuts, cut.compare)
		out.cuts = slices.Compact(out.cuts)
	}
	return out
}

func (c cut) compare(o cut) int {
	if x := c[0].Compare(o[0]); x != 0 {
		return x
	}
	return c[1].Compare(o[1])
}

// crossesCut says whether a pair that must not be one person would be.
func crossesCut(a, b side) bool {
	for _, cuts := range [...][]cut{a.cuts, b.cuts} {
		for _, c := range cuts {
			if a.has(c[0]) && b.has(c[1]) || a.has(c[1]) && b.has(c[0]) {
				return true
			}
		}
	}
	return false
}

// tooMany says whether one more link would name an identifier of s too often.
func tooMany(s side, t terms, most int) bool {
	for _, n := range t.evidence {
		if i, ok := s.find(n); ok && s.degree(i)+1 > most {
			return true
		}
	}
	return false
}

// tally counts the values of a component that fall under limits.
type tally struct {
	known bool
	kinds []kindCount
}

type kindCount struct {
	kind  [kindBytes]byte
	limit int
	n     int
}

// kindBytes is how much of a node's head may say what its limit counts with: the rank; of brands the hash behind it; of
// types that are not configured their letters.
const kindBytes = 1 + otherPrefix

// tally counts g, without those who stand in but, as of a day. A limit with a window counts what was linked within it, and
// what was linked later: a record that comes late must not slip in behind those.
func (p *Policy) tally(g group, today uint16, but *group) tally {
	var t tally
	for i := range g.size() {
		n := g.member(i)
		if but != nil && but.has(n) { // of a restored graph: see Restore.Roots
			continue
		}
		typ := p.TypeOf(n)
		t.known = t.known || typ.Known
		if typ.Limit.Values == 0 || !typ.Limit.counts(g.day(i), today) {
			continue
		}
		t.add(kindOf(n, typ), typ.Limit.Values)
	}
	return t
}

// counts says whether a member that was first linked on a day falls into the limit's window, as of today.
func (l Limit) counts(linked, today uint16) bool {
	return l.Per == 0 || int(linked) > int(today)-int(l.Per/(24*time.Hour))
}

func kindOf(n Node, typ *Type) [kindBytes]byte {
	k := [kindBytes]byte{n[0]}
	switch {
	case typ.Rank == rankOther:
		copy(k[1:], n[1:])
	case typ.Scope == ScopeBrand:
		copy(k[1:], n[1:3])
	}
	return k
}

func (t *tally) add(kind [kindBytes]byte, limit int) {
	for i := range t.kinds {
		if t.kinds[i].kind == kind {
			t.kinds[i].n++
			return
		}
	}
	t.kinds = append(t.kinds, kindCount{kind, limit, 1})
}

// breaks says whether t and o together have too many of something that both have. What one of them has too many of
// alone, because the limit was higher once, keeps it from nobody else.
func (t *tally) breaks(o *tally) bool {
	for _, a := range t.kinds {
		for _, b := range o.kinds {
			if a.kind == b.kind && a.n+b.n > a.limit {
				return true
			}
		}
	}
	return false
}
