package identity

import (
	"context"
	"errors"
	"fmt"
)

// pages writes every bucket with as many pages as its nodes want.
func (r *Restore) pages(ctx context.Context) error {
	groups := make([][]string, buckets)
	for b := range groups {
		groups[b] = r.graph.ledgers[b : b+1 : b+1]
	}
	ledgers, err := r.graph.kv.MGetGroups(ctx, groups)
	if err != nil {
		return fmt.Errorf("read the graph's ledgers: %w", err)
	}
	for b, entries := range r.entries {
		was, err := parseLedger(ledgers[b][0])
		if err != nil && !errors.Is(err, ErrOldLayout) { // whose count goes on as well
			return fmt.Errorf("%s: %w", r.graph.ledgers[b], err)
		}
		pages, nodes, err := paginate(entries)
		if err != nil {
			return fmt.Errorf("restore bucket %d: %w", b, err)
		}
		for i, page := range pages {
			if len(page) > 0 {
				if err := r.put(r.graph.page(b, uint32(i)), page); err != nil {
					return err
				}
			}
		}
		now := ledger{writes: was.writes, pages: uint32(len(pages)), nodes: int64(nodes)} //nolint:gosec // below maxPages
		if err := r.put(r.graph.ledgers[b], []byte(now.String())); err != nil {
			return err
		}
		r.entries[b] = nil
	}
	return nil
}

// paginate spreads entries over as many pages as they want, at least one.
func paginate(entries []byte) (pages [][]byte, nodes int, err error) {
	for rest := entries; len(rest) > 0; nodes++ {
		if _, _, rest, err = nextEntry(rest); err != nil {
			return nil, 0, err
		}
	}
	count := max(1, (nodes+nodesPerPage-1)/nodesPerPage)
	if count > maxPages {
		return nil, 0, fmt.Errorf("%d nodes are more than a bucket can hold", nodes)
	}
	pages = make([][]byte, count)
	sizes := make([]int, count)
	for _, fill := range []bool{false, true} { // measured first
		for rest := entries; len(rest) > 0; {
			node, _, after, _ := nextEntry(rest) // read above
			p := pageOf(node, uint32(count))
			if fill {
				pages[p] = append(pages[p], rest[:len(rest)-len(after)]...)
			} else {
				sizes[p] += len(rest) - len(after)
			}
			rest = after
		}
		for p := range pages {
			if !fill {
				pages[p] = make([]byte, 0, sizes[p])
			}
		}
	}
	return pages, nodes, nil
}
