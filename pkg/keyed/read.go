package keyed

import (
	"context"
	"fmt"

	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/topic"
)

// ReadState reads the state that a key's pointers lead to, for APIs: never to decide by. live is the key
// it is kept under; ok is false if the key was never seen. stateVersion is the newest version known.
func ReadState[S any](ctx context.Context, st *store.Client, t topic.Set, stage string, stateVersion int, key string) (live string, s *S, ok bool, err error) {
	for range maxHops {
		slot := newSlot(st, t, stage, topic.Partition([]byte(key), t.Partitions), nil)
		b, err := st.Get(ctx, slot.stateKey(key))
		if err != nil {
			return "", nil, false, err
		}
		c, err := decodeCell(b)
		if err != nil {
			return "", nil, false, fmt.Errorf("state of %s: %w", key, err)
		}
		if c.frozen {
			key = c.forward
			continue
		}
		if c.rev == "" {
			return key, nil, false, nil
		}
		s, err := decodeBody[S](c.body, c.bodyVer, stateVersion)
		if err != nil {
			return "", nil, false, fmt.Errorf("state of %s: %w", key, err)
		}
		return key, s, true, nil
	}
	return "", nil, false, fmt.Errorf("more than %d forward pointers from %s: %w", maxHops, key, errCorrupt)
}

// Pending is how many outputs and moves the slots of a stage still hold.
func Pending(ctx context.Context, st *store.Client, t topic.Set, stage string) (int64, error) {
	var n int64
	for p := range t.Partitions {
		m, _, err := newSlot(st, t, stage, p, nil).load(ctx)
		if err != nil {
			return 0, err
		}
		n += m.nextSeq - m.pubSeq + m.nextMov - m.movDone
	}
	return n, nil
}

// Applied returns the applied offset of a partition's slot: input below it has had its effect on states.
// It is -1 while nothing has run yet.
func Applied(ctx context.Context, st *store.Client, t topic.Set, stage string, partition int) (int64, error) {
	m, _, err := newSlot(st, t, stage, partition, nil).load(ctx)
	if err != nil {
		return 0, err
	}
	if m.fresh {
		return -1, nil
	}
	return m.applied, nil
}
