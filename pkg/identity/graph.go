package identity

import (
	"bytes"
	"context"
	_ "embed" // swap.lua
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
)

// KV is what a key-value server must offer to hold the graph; *store.Client does. Safe for concurrent use.
type KV interface {
	// MGetGroups returns the values of groups of keys, nil where there is none, in one round trip. A group is read at
	// one moment; its keys have the same hash tag.
	MGetGroups(ctx context.Context, groups [][]string) ([][][]byte, error)
	// RunEach runs a script once for each of keys, whose hash tag is the same, and args, and returns the texts that each
	// answers: one round trip, unless a script is new to the server. A script may have run twice.
	RunEach(ctx context.Context, script string, keys [][]string, args [][]any) ([][][]byte, error)
}

// buckets is over how many hash tags the nodes are spread. A tag lies on one node of a Redis Cluster, so it is also the
// most masters that can share the graph; with 256 of them the shares of a few masters differ by a tenth. What a
// decision vouches for grows with it (see witness). Fixed for a deployment's life: keys are made with it.
const buckets = 256

// maxGrowths ends a loop that meets a bucket with more pages each time. Of many at once a bucket grows by one for each
// call of its script, so that this many are another fault.
const maxGrowths = 1000

// bucketOf is the bucket of a node: its last byte, which is all hash.
func bucketOf(n Node) int { return int(n[nodeBytes-1]) }

// Graph is the Store on a key-value server. Its nodes lie in pages, some two dozen in the value of one key; ADR 0012 says why.
type Graph struct {
	kv      KV
	tags    [buckets]string
	ledgers [buckets]string        // keys of what the buckets count
	pages   [buckets]atomic.Uint32 // of each bucket, as last seen; 0: never
	witness witness
}

var _ Store = (*Graph)(nil)

// NewGraph keeps the graph in kv under keys whose hash tags begin with prefix.
func NewGraph(kv KV, prefix string) *Graph {
	g := &Graph{kv: kv}
	for b := range g.tags {
		g.tags[b] = fmt.Sprintf("{%sg:%02x}", prefix, b)
		g.ledgers[b] = g.tags[b] + "writes"
	}
	return g
}

// page is the key of a page. No key of a graph without pages is like it, nor like the ledger's.
func (g *Graph) page(bucket int, page uint32) string {
	return g.tags[bucket] + "p" + strconv.FormatUint(uint64(page), 16)
}

// asked is what is asked of one bucket at once: nodes, and the pages that they are on if the bucket has as many as was last
// seen.
type asked struct {
	bucket int
	pages  uint32
	on     []uint32 // distinct pages
	which  []int    // nodes, by their places in the call
	at     []int    // and for each the place of its page in on
}

// ask sorts some nodes by bucket and page.
func (g *Graph) ask(which []int, node func(i int) *Node) []*asked {
	var at [buckets]*asked
	var all []*asked
	for _, i := range which {
		n := node(i)
		a := at[bucketOf(*n)]
		if a == nil {
			a = &asked{bucket: bucketOf(*n), pages: max(1, g.pages[bucketOf(*n)].Load())}
			at[a.bucket], all = a, append(all, a)
		}
		p := pageOf(n[:], a.pages)
		place := slices.Index(a.on, p)
		if place < 0 {
			place, a.on = len(a.on), append(a.on, p)
		}
		a.which, a.at = append(a.which, i), append(a.at, place)
	}
	return all
}

// every is the numbers below n.
func every(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// Load implements Loader. Pages of one bucket are read together with its ledger. ErrLost: the graph went
// back to before what this process has seen, and nothing must be decided on it.
func (g *Graph) Load(ctx context.Context, nodes []Node) ([][]byte, error) {
	out, rest := make([][]byte, len(nodes)), every(len(nodes))
	for range maxGrowths {
		var err error
		if rest, err = g.load(ctx, nodes, rest, out); err != nil || len(rest) == 0 {
			return out, err
		}
	}
	return nil, fmt.Errorf("%w: buckets grow without end", ErrCorrupt)
}

// load reads some of nodes into out, and returns those that are to be read again: their bucket has other pages than was known.
func (g *Graph) load(ctx context.Context, nodes []Node, which []int, out [][]byte) ([]int, error) {
	all := g.ask(which, func(i int) *Node { return &nodes[i] })
	groups := make([][]string, len(all))
	for i, a := range all {
		keys := append(make([]string, 0, 1+len(a.on)), g.ledgers[a.bucket])
		for _, p := range a.on {
			keys = append(keys, g.page(a.bucket, p))
		}
		groups[i] = keys
	}
	known := g.witness.known()
	values, err := g.kv.MGetGroups(ctx, groups)
	if err != nil {
		return nil, err
	}
	var again []int
	for i, a := range all {
		t, err := g.saw(a.bucket, values[i][0], known[a.bucket])
		if err != nil {
			return nil, err
		}
		for k, node := range a.which {
			n := nodes[node]
			if pageOf(n[:], t.pages) != a.on[a.at[k]] {
				again = append(again, node)
				continue
			}
			if out[node], err = find(values[i][1+a.at[k]], n); err != nil {
				return nil, fmt.Errorf("%s: %w", groups[i][1+a.at[k]], err)
			}
		}
	}
	return again, nil
}

// saw takes in a bucket's ledger, by an answer to what was asked when it had counted at least least writes.
func (g *Graph) saw(bucket int, text []byte, least int64) (ledger, error) {
	t, err := parseLedger(text)
	if err != nil {
		return ledger{}, fmt.Errorf("%s: %w", g.ledgers[bucket], err)
	}
	g.pages[bucket].Store(t.pages)
	return t, g.witness.saw(bucket, t.writes, least)
}

//go:embed swap.lua
var swapScript string

// CompareAndSet implements Store: those of one bucket at one moment, all in one round trip.
func (g *Graph) CompareAndSet(ctx context.Context, swaps []Swap) ([]bool, error) {
	done, rest := make([]bool, len(swaps)), every(len(swaps))
	known := g.witness.known() // before the first try, a copy of which may have landed
	for range maxGrowths {
		var err error
		if rest, err = g.swap(ctx, swaps, rest, &known, done); err != nil {
			return nil, fmt.Errorf("%d swaps: %w", len(swaps), err)
		}
		if len(rest) == 0 {
			return done, nil
		}
	}
	return nil, fmt.Errorf("%w: buckets grow without end", ErrCorrupt)
}

// swap does some of swaps, and returns those of buckets that have other pages than was known, which were not done.
func (g *Graph) swap(ctx context.Context, swaps []Swap, which []int, known *[buckets]int64, done []bool) ([]int, error) {
	all := g.ask(which, func(i int) *Node { return &swaps[i].Node })
	keys, args := make([][]string, len(all)), make([][]any, len(all))
	for i, a := range all {
		var err error
		if keys[i], args[i], err = g.script(a, swaps); err != nil {
			return nil, err
		}
	}
	answers, err := g.kv.RunEach(ctx, swapScript, keys, args)
	if err != nil {
		return nil, err
	}
	var again []int
	for i, a := range all {
		said := answers[i]
		if len(said) != 1 && len(said) != 1+len(a.which) {
			return nil, fmt.Errorf("%d swaps of bucket %d: answer of %d values", len(a.which), a.bucket, len(said))
		}
		least := known[a.bucket]
		for k, v := range said[1:] {
			if done[a.which[k]] = bytes.Equal(v, []byte("1")); done[a.which[k]] {
				least++ // this swap itself was counted behind what was known when it was sent
			}
		}
		if _, err := g.saw(a.bucket, said[0], least); err != nil {
			return nil, err
		}
		if len(said) == 1 {
			again = append(again, a.which...)
		}
	}
	return again, nil
}

// script is the keys and arguments of swap.lua.
func (g *Graph) script(a *asked, swaps []Swap) ([]string, []any, error) {
	victim, twice := splits(a.pages)
	keys := []string{g.ledgers[a.bucket], g.page(a.bucket, victim), g.page(a.bucket, a.pages)}
	args := []any{a.pages, nodesPerPage, twice}
	places := make([]int, len(a.on)) // of pages in keys, from 1
	for i, p := range a.on {
		if places[i] = 2; p != victim {
			keys = append(keys, g.page(a.bucket, p))
			places[i] = len(keys)
		}
	}
	for k, i := range a.which {
		s := &swaps[i]
		var old []byte
		var err error
		if s.Old != nil {
			if old, err = appendEntry(make([]byte, 0, entryBytes(s.Old)), s.Node, s.Old); err != nil {
				return nil, nil, err
			}
		}
		next, err := appendEntry(make([]byte, 0, entryBytes(s.New)), s.Node, s.New)
		if err != nil {
			return nil, nil, err
		}
		args = append(args, places[a.at[k]], s.Node[:entryNode], old, next)
	}
	return keys, args, nil
}
