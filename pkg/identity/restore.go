package identity

import (
	"fmt"
	"slices"
)

// Pattern matches the keys of all nodes in a server's key space, which have dashes in them, and not the counts of
// writes: these go on, whatever becomes of the nodes. The prefix must not hold what patterns give a meaning to, or be
// quoted already.
func Pattern(prefix string) string { return "{" + prefix + "g:??}*-*" }

// Restore writes the graph anew from the links that were published. It is for an empty graph that nobody else
// works on, and for one goroutine.
type Restore struct {
	graph   *Graph
	put     func(key string, value []byte) error
	parents map[Node]Node // of every node that was linked: about 60 bytes each
	listed  map[Node]Node // members of a loser whose own links have not been met: under whom they stand
}

// NewRestore hands the value of every node to put, which may keep it.
func NewRestore(g *Graph, put func(key string, value []byte) error) *Restore {
	return &Restore{graph: g, put: put, parents: map[Node]Node{}, listed: map[Node]Node{}}
}

// Link takes one link in. confirmed says that its merge is known to be wherever it must be; otherwise it will be
// published again before the next record that crosses it. A link taken in before is nothing.
func (r *Restore) Link(m *Merge, confirmed bool) error {
	loser, err := ParseNode(m.Loser)
	if err != nil {
		return fmt.Errorf("restore link: %w", err)
	}
	if _, known := r.parents[loser]; known {
		return nil
	}
	winner, err := ParseNode(m.Winner)
	if err != nil {
		return fmt.Errorf("restore link of %s: %w", loser, err)
	}
	v := value{linked: true, confirmed: confirmed, parent: winner, link: winner, cause: m.Cause}
	if v.members, err = packNodes(m.Members); err != nil {
		return fmt.Errorf("restore link of %s: %w", loser, err)
	}
	if !confirmed {
		for _, e := range m.Evidence {
			n, err := ParseNode(e.Node)
			if err != nil {
				return fmt.Errorf("restore link of %s: evidence: %w", loser, err)
			}
			v.evidence = append(v.evidence, Identifier{Type: e.Type, Value: e.Value, Node: n})
		}
	}
	r.parents[loser] = winner
	delete(r.listed, loser)
	for i := range v.size() {
		if n := v.member(i); r.parents[n] == (Node{}) {
			r.listed[n] = loser
		}
	}
	return r.write(loser, &v)
}

// packNodes packs nodes in order.
func packNodes(texts []string) ([]byte, error) {
	nodes := make([]Node, len(texts))
	for i, text := range texts {
		n, err := ParseNode(text)
		if err != nil {
			return nil, fmt.Errorf("member: %w", err)
		}
		nodes[i] = n
	}
	return packIDs(nodes), nil
}

func packIDs(nodes []Node) []byte {
	slices.SortFunc(nodes, Node.Compare)
	b := make([]byte, 0, len(nodes)*nodeBytes)
	for _, n := range slices.Compact(nodes) {
		b = append(b, n[:]...)
	}
	return b
}

// Roots writes the roots of all that was linked, which list their components. It is called once, at the end,
// and returns how many nodes were linked.
//
// A link may be lost that was never published, while one above it was, whose loser lists the node. The node is a root
// again then, until the record that linked it is decided again; but it stays on the lists above, or the versions of
// merges there, which count members, would go back.
func (r *Restore) Roots() (int, error) {
	components := map[Node][]Node{}
	for n := range r.parents {
		root := r.root(n)
		components[root] = append(components[root], n)
	}
	for n, under := range r.listed {
		root := r.root(under)
		components[root] = append(components[root], n)
	}
	for root, nodes := range components {
		if err := r.write(root, &value{members: packIDs(append(nodes, root))}); err != nil {
			return 0, err
		}
	}
	return len(r.parents), nil
}

// root follows links, and shortens the way for those who come after. Links lead to earlier nodes, so it ends.
func (r *Restore) root(n Node) Node {
	for {
		p, linked := r.parents[n]
		if !linked {
			return n
		}
		if next, linked := r.parents[p]; linked {
			r.parents[n] = next
		}
		n = p
	}
}

func (r *Restore) write(n Node, v *value) error {
	if err := v.stamp(); err != nil {
		return err
	}
	return r.put(r.graph.key(n), v.raw)
}
