package identity

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
)

// Pattern matches the keys of all pages in a server's key space, and of all nodes of before there were pages, but not the
// ledgers: counts of writes go on, whatever becomes of the nodes. The prefix must not hold what patterns give a meaning to, or
// be quoted already.
func Pattern(prefix string) string { return "{" + prefix + "g:??}[0-9a-fp]*" }

// Restore writes the graph anew from the links that were published. It is for an empty graph that nobody else
// works on, and for one goroutine.
type Restore struct {
	graph  *Graph
	put    func(key string, value []byte) error
	nodes  map[Node]restored // of every node that was named: about 80 bytes each
	listed map[Node]Node     // members of a loser whose own links have not been met: under whom they stand
	linked int
	undone restoredUndo
	over   map[Node]*override

	entries [buckets][]byte // as pages hold them, without order
}

// restored is what links say of a node.
type restored struct {
	parent Node   // zero: not linked
	day    uint16 // on which it was first linked; 0: not known
	degree uint16 // links that name it, as far as a value counts them
	merged bool   // its link brought in several identifiers
}

// NewRestore hands every page, and what the buckets count, to put, which may keep it.
func NewRestore(g *Graph, put func(key string, value []byte) error) *Restore {
	return &Restore{graph: g, put: put, nodes: map[Node]restored{}, listed: map[Node]Node{}, over: map[Node]*override{}}
}

// Link takes one link in. confirmed says that its merge is known to be wherever it must be; otherwise it will be
// published again before the next record that crosses it. A link taken in before is nothing.
func (r *Restore) Link(m *Merge, confirmed bool) error {
	loser, err := ParseNode(m.Loser)
	if err != nil {
		return fmt.Errorf("restore link: %w", err)
	}
	if !r.nodes[loser].parent.IsZero() {
		return nil
	}
	winner, err := ParseNode(m.Winner)
	if err != nil {
		return fmt.Errorf("restore link of %s: %w", loser, err)
	}
	v := value{linked: true, confirmed: confirmed, parent: winner, link: winner}
	if v.group, err = packMembers(m); err != nil {
		return fmt.Errorf("restore link of %s: %w", loser, err)
	}
	evidence, err := identifiers(m.Evidence)
	if err != nil {
		return fmt.Errorf("restore link of %s: %w", loser, err)
	}
	if !confirmed {
		v.cause, v.evidence = m.Cause, evidence
	}
	for _, e := range evidence {
		x := r.nodes[e.Node]
		x.degree = min(x.degree+1, maxDegree+1)
		r.nodes[e.Node] = x
		r.mention(e.Node, m, 0, true)
	}
	r.rise(winner, m.Generation())
	x := r.nodes[loser]
	x.parent, x.merged = winner, v.people() > 1
	r.nodes[loser] = x
	r.linked++
	delete(r.listed, loser)
	for i := range v.size() {
		n := v.member(i)
		r.first(n, v.day(i), m)
		if r.nodes[n].parent.IsZero() {
			r.listed[n] = loser
		}
	}
	r.first(dated(winner, evidence, &v.group), m.WinnerDay, m)
	if v.size() == 1 {
		v.days = nil
	}
	return r.write(loser, &v)
}

// first notes the day on which a node was first linked. What earlier versions published does not say: the earliest link
// that speaks of the node is as near as can be.
func (r *Restore) first(n Node, d uint16, m *Merge) {
	x := r.nodes[n]
	r.mention(n, m, d, false)
	switch {
	case len(m.Days) > 0:
		x.day = d
	case x.day == 0 || day(m.Cause.Time) < x.day:
		x.day = day(m.Cause.Time)
	}
	r.nodes[n] = x
}

func identifiers(evidence []Evidence) ([]Identifier, error) {
	out := make([]Identifier, len(evidence))
	for i, e := range evidence {
		n, err := ParseNode(e.Node)
		if err != nil {
			return nil, fmt.Errorf("evidence: %w", err)
		}
		out[i] = Identifier{Type: e.Type, Value: e.Value, Node: n}
	}
	return out, nil
}

// packMembers packs a loser's members with their days.
func packMembers(m *Merge) (group, error) {
	var g group
	for i, text := range m.Members {
		n, err := ParseNode(text)
		if err != nil {
			return group{}, fmt.Errorf("member: %w", err)
		}
		one := group{members: n[:]}
		if len(m.Days) > 0 {
			one.days = sameDays(m.Days[i], 1)
		}
		g = union(g, one)
	}
	return g, nil
}

// Roots adds the roots of all that was linked, which list their components, and writes the pages. It is called once, at the
// end, and returns how many nodes were linked.
//
// A link may be lost that was never published, while one above it was, whose loser lists the node. The node is a root
// again then, until the record that linked it is decided again; but it stays on the lists above, or the versions of
// merges there, which count members, would go back.
func (r *Restore) Roots(ctx context.Context) (int, error) {
	if err := r.applyParted(); err != nil {
		return 0, err
	}
	r.riseUp()
	r.applyCuts()
	components := map[Node][]Node{}
	merges := map[Node]int{}
	for n, x := range r.nodes {
		if x.parent.IsZero() {
			continue
		}
		root := r.root(n)
		components[root] = append(components[root], n)
		if x.merged {
			merges[root]++
		}
	}
	for n, under := range r.listed {
		root := r.root(under)
		components[root] = append(components[root], n)
	}
	for root, nodes := range components {
		if err := r.write(root, &value{group: r.group(append(nodes, root)), merges: merges[root]}); err != nil {
			return 0, err
		}
	}
	if err := r.override(); err != nil {
		return 0, err
	}
	return r.linked, r.pages(ctx)
}

// group packs the members of a root, with what is known of each.
func (r *Restore) group(nodes []Node) group {
	slices.SortFunc(nodes, Node.Compare)
	var g group
	dayed, many := false, false
	for _, n := range slices.Compact(nodes) {
		x := r.nodes[n]
		extra := max(x.degree, 1) - 1
		g.members = append(g.members, n[:]...)
		g.days = binary.BigEndian.AppendUint16(g.days, x.day)
		g.degrees = append(g.degrees, byte(extra)) //nolint:gosec // bounded
		dayed, many = dayed || x.day != 0, many || extra != 0
	}
	if !dayed {
		g.days = nil
	}
	if !many {
		g.degrees = nil
	}
	return g
}

// root follows links, and shortens the way for those who come after. Links lead to earlier nodes, so it ends.
func (r *Restore) root(n Node) Node {
	for {
		x := r.nodes[n]
		if x.parent.IsZero() {
			return n
		}
		if next := r.nodes[x.parent].parent; !next.IsZero() {
			x.parent = next
			r.nodes[n] = x
		}
		n = x.parent
	}
}

// write adds a node to its bucket; each comes once.
func (r *Restore) write(n Node, v *value) error {
	if err := v.stamp(); err != nil {
		return err
	}
	b := &r.entries[bucketOf(n)]
	var err error
	*b, err = appendEntry(*b, n, v.raw)
	return err
}
