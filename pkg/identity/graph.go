package identity

import (
	"context"
	"fmt"
	"sync"
)

// KV is what a key-value server must offer to hold the graph; *store.Client does. Safe for concurrent use.
type KV interface {
	// MGet returns the values of keys, nil where there is none, in one round trip.
	MGet(ctx context.Context, keys ...string) ([][]byte, error)
	// CompareAndSet sets a key whose value is old (nil: that is absent); true also if it holds next already.
	CompareAndSet(ctx context.Context, key string, old, next []byte) (bool, error)
}

// maxSwapsInFlight bounds the connections that one batch of swaps uses at once: enough for one fsync of the
// server to serve many, few enough to leave connections for other partitions.
const maxSwapsInFlight = 16

// Graph is the Store on a key-value server.
type Graph struct {
	kv     KV
	prefix string
}

var _ Store = (*Graph)(nil)

// NewGraph keeps the graph in kv under keys that begin with prefix.
func NewGraph(kv KV, prefix string) *Graph { return &Graph{kv: kv, prefix: prefix} }

// key is the key of a node. The hash tag spreads nodes over the slots of a Redis Cluster.
func (g *Graph) key(n Node) string { return g.prefix + "g:{" + n.String() + "}" }

// Load implements Loader.
func (g *Graph) Load(ctx context.Context, nodes []Node) ([][]byte, error) {
	keys := make([]string, len(nodes))
	for i, n := range nodes {
		keys[i] = g.key(n)
	}
	return g.kv.MGet(ctx, keys...)
}

// CompareAndSet implements Store, several swaps at once.
func (g *Graph) CompareAndSet(ctx context.Context, swaps []Swap) ([]bool, error) {
	done := make([]bool, len(swaps))
	if len(swaps) == 1 {
		var err error
		done[0], err = g.kv.CompareAndSet(ctx, g.key(swaps[0].Node), swaps[0].Old, swaps[0].New)
		return done, err
	}
	var wg sync.WaitGroup
	errs := make([]error, min(maxSwapsInFlight, len(swaps)))
	for w := range errs {
		wg.Go(func() {
			for i := w; i < len(swaps); i += len(errs) {
				s := swaps[i]
				if done[i], errs[w] = g.kv.CompareAndSet(ctx, g.key(s.Node), s.Old, s.New); errs[w] != nil {
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
