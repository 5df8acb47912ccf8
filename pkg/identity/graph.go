package identity

import (
	"context"
	"fmt"
	"strconv"
	"sync"
)

// KV is what a key-value server must offer to hold the graph; *store.Client does. Safe for concurrent use.
type KV interface {
	// MGetGroups returns the values of groups of keys, nil where there is none, in one round trip. A group is read at
	// one moment; its keys have the same hash tag.
	MGetGroups(ctx context.Context, groups [][]string) ([][][]byte, error)
	// CompareAndSet sets a key whose value is old (nil: that is absent); ok also if it holds next already. In the same
	// step it counts what it set in counter, which has the same hash tag, and returns that count.
	CompareAndSet(ctx context.Context, key, counter string, old, next []byte) (ok bool, count int64, err error)
}

// maxSwapsInFlight bounds the connections that one batch of swaps uses at once: enough for one fsync of the
// server to serve many, few enough to leave connections for other partitions.
const maxSwapsInFlight = 16

// buckets is over how many hash tags the nodes are spread. A tag lies on one node of a Redis Cluster, so it is also the
// most masters that can share the graph; with 256 of them the shares of a few masters differ by a tenth. What a
// decision vouches for grows with it (see witness). Fixed for a deployment's life: keys are made with it.
const buckets = 256

// bucketOf is the bucket of a node: its last byte, which is all hash.
func bucketOf(n Node) int { return int(n[nodeBytes-1]) }

// Graph is the Store on a key-value server.
type Graph struct {
	kv       KV
	tags     [buckets]string
	counters [buckets]string // keys that count the writes of a bucket
	witness  witness
}

var _ Store = (*Graph)(nil)

// NewGraph keeps the graph in kv under keys whose hash tags begin with prefix.
func NewGraph(kv KV, prefix string) *Graph {
	g := &Graph{kv: kv}
	for b := range g.tags {
		g.tags[b] = fmt.Sprintf("{%sg:%02x}", prefix, b)
		g.counters[b] = g.tags[b] + "writes"
	}
	return g
}

// key is the key of a node.
func (g *Graph) key(n Node) string { return g.tags[bucketOf(n)] + n.String() }

// Load implements Loader. Nodes of one bucket are read together with its count of writes. ErrLost: the graph went
// back to before what this process has seen, and nothing must be decided on it.
func (g *Graph) Load(ctx context.Context, nodes []Node) ([][]byte, error) {
	var at [buckets]int // 1 + the bucket's group; 0: none
	var groups [][]string
	var of []int // the bucket of a group
	for _, n := range nodes {
		b := bucketOf(n)
		if at[b] == 0 {
			groups, of = append(groups, []string{g.counters[b]}), append(of, b)
			at[b] = len(groups)
		}
		groups[at[b]-1] = append(groups[at[b]-1], g.key(n))
	}
	known := g.witness.known()
	values, err := g.kv.MGetGroups(ctx, groups)
	if err != nil {
		return nil, err
	}
	for i, vs := range values {
		n, err := counted(vs[0])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", g.counters[of[i]], err)
		}
		if err := g.witness.saw(of[i], n, known[of[i]]); err != nil {
			return nil, err
		}
		values[i] = vs[1:]
	}
	out := make([][]byte, len(nodes))
	for i, n := range nodes {
		vs := &values[at[bucketOf(n)]-1]
		out[i], *vs = (*vs)[0], (*vs)[1:]
	}
	return out, nil
}

// counted reads a count of writes; there is none before the first.
func counted(b []byte) (int64, error) {
	if b == nil {
		return 0, nil
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: count of writes %q", ErrCorrupt, b)
	}
	return n, nil
}

// CompareAndSet implements Store, several swaps at once.
func (g *Graph) CompareAndSet(ctx context.Context, swaps []Swap) ([]bool, error) {
	done := make([]bool, len(swaps))
	if len(swaps) == 1 {
		var err error
		done[0], err = g.swap(ctx, &swaps[0])
		return done, err
	}
	var wg sync.WaitGroup
	errs := make([]error, min(maxSwapsInFlight, len(swaps)))
	for w := range errs {
		wg.Go(func() {
			for i := w; i < len(swaps); i += len(errs) {
				if done[i], errs[w] = g.swap(ctx, &swaps[i]); errs[w] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("%d swaps: %w", len(swaps), err)
		}
	}
	return done, nil
}

func (g *Graph) swap(ctx context.Context, s *Swap) (bool, error) {
	b := bucketOf(s.Node)
	least := g.witness.of(b)
	ok, n, err := g.kv.CompareAndSet(ctx, g.key(s.Node), g.counters[b], s.Old, s.New)
	if err != nil {
		return false, err
	}
	if ok {
		least++ // this swap itself was counted behind what was known when it was sent
	}
	return ok, g.witness.saw(b, n, least)
}
