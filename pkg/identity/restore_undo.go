package identity

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// restoredUndo is what a restored graph is told of splits.
type restoredUndo struct {
	parted   map[Node]*Parted
	mentions map[Node][]mention
	cuts     map[Node][]cut // said of a node by the last record under its key
}

// mention is a link of a later generation than the first that speaks of a node: it counts if it is not older than the split
// that the node went through last.
type mention struct {
	generation uint64
	day        uint16
	named      bool // as evidence
}

// ParseParted reads the value of a record of kind split.
func ParseParted(b []byte) (Parted, error) {
	var p Parted
	if err := json.Unmarshal(b, &p); err != nil {
		return Parted{}, fmt.Errorf("parse split: %w", err)
	}
	for field, text := range map[string]string{"node": p.Node, "into": p.Into, "person": p.Person} {
		if _, err := ParseNode(text); err != nil && (field != "into" || text != "") {
			return Parted{}, fmt.Errorf("parse split of %q: %s: %w", p.Node, field, err)
		}
	}
	return p, nil
}

// ParsePart reads the value of a record of kind part.
func ParsePart(b []byte) (Part, error) {
	var p Part
	if err := json.Unmarshal(b, &p); err != nil {
		return Part{}, fmt.Errorf("parse part: %w", err)
	}
	if _, err := ParseNode(p.Node); err != nil {
		return Part{}, fmt.Errorf("parse part: node: %w", err)
	}
	if _, err := parseCuts(p.Cuts); err != nil {
		return Part{}, fmt.Errorf("parse part %s: %w", p.Node, err)
	}
	return p, nil
}

func parseCuts(texts [][2]string) ([]cut, error) {
	cuts := make([]cut, len(texts))
	for i, pair := range texts {
		var n [2]Node
		for k, text := range pair {
			var err error
			if n[k], err = ParseNode(text); err != nil {
				return nil, fmt.Errorf("cuts[%d]: %w", i, err)
			}
		}
		cuts[i] = newCut(n[0], n[1])
	}
	return cuts, nil
}

// said takes in the cuts of a node, in the place of those of before.
func (u *restoredUndo) said(n Node, cuts []cut) {
	if u.cuts == nil {
		u.cuts = map[Node][]cut{}
	}
	u.cuts[n] = cuts
}

// Parted takes in where a split has put a member. Of several, that of the last split counts, in whatever order they come.
// Without Into it is nothing: the graph never takes a node out without a place to go.
func (r *Restore) Parted(p *Parted) error {
	n, err := ParseNode(p.Node)
	if err != nil || p.Into == "" {
		return err
	}
	if r.undone.parted == nil {
		r.undone.parted = map[Node]*Parted{}
	}
	if was := r.undone.parted[n]; was == nil || was.Generation < p.Generation {
		r.undone.parted[n] = p
	}
	return nil
}

// Part takes in a part. Of several, the last.
func (r *Restore) Part(p *Part) error {
	n, err := ParseNode(p.Node)
	if err != nil {
		return fmt.Errorf("restore part: %w", err)
	}
	cuts, err := parseCuts(p.Cuts)
	if err != nil {
		return fmt.Errorf("restore part %s: %w", p.Node, err)
	}
	r.rise(n, p.Generation)
	r.undone.said(n, cuts)
	return nil
}

// rise notes that a node was the root of a generation, or that of its members.
func (r *Restore) rise(n Node, generation uint64) {
	if generation > 0 {
		o := r.of(n)
		o.generation = max(o.generation, generation)
	}
}

// mention notes what a link of a later generation says of a node.
func (r *Restore) mention(n Node, m *Merge, d uint16, named bool) {
	if m.Generation() == 0 {
		return
	}
	if r.undone.mentions == nil {
		r.undone.mentions = map[Node][]mention{}
	}
	r.undone.mentions[n] = append(r.undone.mentions[n], mention{m.Generation(), d, named})
}

// applyParted lets splits take the place of the links of before: of its members, nothing counts that is older.
func (r *Restore) applyParted() error {
	for n, p := range r.undone.parted {
		into, err := ParseNode(p.Into)
		if err != nil {
			return fmt.Errorf("restore split of %s: %w", p.Node, err)
		}
		x := restored{parent: into, day: p.Day, degree: uint16(p.Degree) + 1}
		for _, m := range r.undone.mentions[n] {
			if m.generation < p.Generation {
				continue
			}
			if x.day == 0 {
				x.day = m.day
			}
			if m.named {
				x.degree = min(x.degree+1, maxDegree+1)
			}
		}
		r.nodes[n] = x
		delete(r.listed, n)
		if _, ok := r.nodes[into]; !ok {
			r.nodes[into] = restored{}
		}
		r.rise(into, p.Generation)
		v := &value{linked: true, confirmed: true, parted: true, parent: into, link: into, origin: n, incarnation: p.Generation,
			group: group{members: append([]byte(nil), n[:]...), days: sameDays(p.Day, 1)}}
		if p.Degree > 0 {
			v.degrees = []byte{p.Degree}
		}
		r.of(n).parted = v
	}
	return nil
}

// riseUp gives every root the highest generation of what stands in its component, and its cuts. It is asked before ways are
// shortened: whoever is linked on a way has the generation of what came to it.
func (r *Restore) riseUp() {
	for n, o := range maps.Clone(r.over) {
		for at := r.nodes[n].parent; !at.IsZero(); at = r.nodes[at].parent {
			r.rise(at, o.generation)
		}
	}
}

// applyCuts gives roots the cuts of their members.
func (r *Restore) applyCuts() {
	for _, cuts := range r.undone.cuts {
		for _, c := range cuts {
			for _, n := range c {
				o := r.of(r.root(n))
				o.cuts = append(o.cuts, c)
			}
		}
	}
	for _, o := range r.over {
		slices.SortFunc(o.cuts, cut.compare)
		o.cuts = slices.Compact(o.cuts)
	}
}
