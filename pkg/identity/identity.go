// Package identity says which identifiers are the same person: the rules that turn an identifier into a
// node of the graph, and the graph itself, a union-find over a key-value store without locks.
//
// It owns: normalisation and blocked values per identifier type, node ids and their fixed order, the
// encoding of a node's value, the linking protocol (architecture section 5), and the merge record.
//
// It guarantees, for any number of resolvers working on one store at the same time, crashing anywhere:
//   - a profile id is the first node, in the fixed order, of its connected component: a function of the
//     accepted links alone;
//   - links point to earlier nodes only, so there are no cycles, and a root lists exactly its component;
//   - whoever crosses a link whose merge is not known to be published is handed that merge, with the
//     link's own cause, to publish before its own record.
//
// It must not know how records are moved, which store holds the graph (Store is all it sees), nor what an
// event means. It does no I/O of its own and reads no clock.
package identity

import (
	"context"
	"errors"
)

// Loader reads the graph. It is safe for concurrent use.
type Loader interface {
	// Load returns the values of nodes, in order, nil where there is none, in one round trip. A node may stand
	// in nodes twice. The caller owns what is returned; nobody changes it.
	Load(ctx context.Context, nodes []Node) ([][]byte, error)
}

// Store holds the values of the graph, one per node. It must be linearisable per node; nothing is asked
// across nodes. It is safe for concurrent use.
type Store interface {
	Loader
	// CompareAndSet does each swap that finds its node's value as it was read, and says which it did. The
	// swaps are independent and may be done in any order or at once; their nodes may repeat. After an error
	// the outcome of all of them is unknown. New values are never equal to any written before, so a retry
	// inside that finds its own value in place answers true.
	CompareAndSet(ctx context.Context, swaps []Swap) ([]bool, error)
}

// Swap replaces a node's value Old (nil: none) by New.
type Swap struct {
	Node     Node
	Old, New []byte
}

// ErrNewerVersion means that a value was written by a newer binary: this one must not touch it.
var ErrNewerVersion = errors.New("identity graph value has a newer version than this binary knows")

// ErrCorrupt means that stored bytes are not what this package writes, or break its invariants.
var ErrCorrupt = errors.New("identity graph is corrupt")
