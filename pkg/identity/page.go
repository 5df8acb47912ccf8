package identity

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// ErrOldLayout means that an older binary has written the graph, each node under a key of its own.
var ErrOldLayout = errors.New("the identity graph was written by an older version of weft: stop identity-stitcher everywhere and run 'weft rebuild' for it (docs/operate.md)")

// nodesPerPage is how many nodes a page holds on average. A key of Redis costs about 80 bytes beside its value, so few nodes
// waste memory; a page travels and is searched whole, so many waste time. ADR 0012 has the figures.
const nodesPerPage = 24

// maxPages bounds what is taken for a bucket's number of pages: nodes are spread over them by 32 bits, twice which are asked of.
const maxPages = 1 << 30

// A page is the entries of its nodes, one behind the other in no order: the length of the value (below 128 in one byte;
// otherwise three, the highest bit set), the node without its last byte, which its bucket says, and the value. swap.lua
// reads and writes it too.
const (
	entryNode  = nodeBytes - 1
	shortValue = 1 << 7  // values below have their length in one byte
	maxValue   = 1 << 23 // and below this in three: half a million members
)

// entryBytes is how long the entry of a value is.
func entryBytes(value []byte) int {
	if len(value) < shortValue {
		return 1 + entryNode + len(value)
	}
	return 3 + entryNode + len(value)
}

// appendEntry appends a node's entry.
func appendEntry(b []byte, n Node, value []byte) ([]byte, error) {
	switch size := len(value); {
	case size < shortValue:
		b = append(b, byte(size))
	case size < maxValue:
		b = append(b, shortValue|byte(size>>16), byte(size>>8), byte(size)) //nolint:gosec // cut on purpose
	default:
		return nil, fmt.Errorf("value of node %s has %d bytes, at most %d can be stored", n, size, maxValue-1)
	}
	return append(append(b, n[:entryNode]...), value...), nil
}

// nextEntry splits a page behind its first entry.
func nextEntry(page []byte) (node, value, rest []byte, err error) {
	size, head := int(page[0]), 1
	if size >= shortValue && len(page) >= 3 {
		size, head = (size-shortValue)<<16|int(page[1])<<8|int(page[2]), 3
	}
	if end := head + entryNode + size; size < shortValue || head == 3 {
		if end <= len(page) {
			return page[head : head+entryNode], page[head+entryNode : end : end], page[end:], nil
		}
	}
	return nil, nil, nil, fmt.Errorf("%w: a page ends within an entry", ErrCorrupt)
}

// find returns the value of a node in a page, nil if it has none there.
func find(page []byte, n Node) ([]byte, error) {
	for len(page) > 0 {
		node, value, rest, err := nextEntry(page)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(node, n[:entryNode]) {
			return value, nil
		}
		page = rest
	}
	return nil, nil
}

// spread are the 32 bits of a node by which pages share a bucket's nodes: those before its last byte, all of them hash.
func spread(n []byte) uint32 { return binary.BigEndian.Uint32(n[entryNode-4 : entryNode]) }

// pageOf is the page of a node among pages. Pages are split one after the other, in order, round by round: as many as a power
// of two are whole rounds, those behind came of the first ones (linear hashing, Litwin 1980).
func pageOf(n []byte, pages uint32) uint32 {
	round := uint32(1) << (bits.Len32(pages) - 1) // pages when this round began
	if i := spread(n) & (2*round - 1); i < pages {
		return i
	}
	return spread(n) & (round - 1)
}

// splits says which page is split when there are pages, and twice the number of those that the round began with.
func splits(pages uint32) (victim, twice uint32) {
	round := uint32(1) << (bits.Len32(pages) - 1)
	return pages - round, 2 * round
}

// ledger is what a bucket counts of itself.
type ledger struct {
	writes int64 // of all time; they only grow
	pages  uint32
	nodes  int64
}

// String is how a ledger is stored. Binaries of before the pages find a number there, and stop at this.
func (t ledger) String() string { return fmt.Sprintf("%d/%d/%d", t.writes, t.pages, t.nodes) }

// parseLedger reads a ledger; there is none before the first write. ErrOldLayout: it is the count of writes alone, and given.
func parseLedger(b []byte) (ledger, error) {
	if len(b) == 0 {
		return ledger{pages: 1}, nil
	}
	text := strings.Split(string(b), "/")
	var numbers [3]int64
	for i, s := range text {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 || i == len(numbers) {
			return ledger{}, fmt.Errorf("%w: ledger %q", ErrCorrupt, b)
		}
		numbers[i] = n
	}
	t := ledger{writes: numbers[0], nodes: numbers[2]}
	switch {
	case len(text) == 1:
		return t, ErrOldLayout
	case len(text) != len(numbers) || numbers[1] < 1 || numbers[1] > maxPages:
		return ledger{}, fmt.Errorf("%w: ledger %q", ErrCorrupt, b)
	}
	t.pages = uint32(numbers[1]) //nolint:gosec // checked above
	return t, nil
}
