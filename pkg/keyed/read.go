package keyed

import (
	"context"
	"fmt"

	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Found is what a key's pointers lead to.
type Found[S any] struct {
	Live    string // the key that the state is kept under; "": nowhere
	State   *S     // nil: Live was never seen
	Parted  bool   // on the way there a key was split or erased
	Waiting bool   // what was before it is still being told again
}

// ReadState reads the state that a key's pointers lead to, for APIs: never to decide by. stateVersion is the newest
// version known.
func ReadState[S any](ctx context.Context, st *store.Client, t topic.Set, stage string, stateVersion int, key string) (Found[S], error) {
	f := Found[S]{Live: key}
	for range maxHops {
		slot := newSlot(st, t, stage, topic.Partition([]byte(f.Live), t.Partitions), nil)
		b, err := st.Get(ctx, slot.stateKey(f.Live))
		if err != nil {
			return Found[S]{}, err
		}
		c, err := decodeCell(b)
		if err != nil {
			return Found[S]{}, fmt.Errorf("state of %s: %w", f.Live, err)
		}
		f.Parted = f.Parted || c.gone
		if c.frozen && c.forward != "" {
			f.Live = c.forward
			continue
		}
		f.Waiting = c.waiting
		switch {
		case c.gone:
			f.Live = ""
			return f, nil
		case c.rev == "":
			return f, nil
		}
		if f.State, err = decodeBody[S](c.body, c.bodyVer, stateVersion); err != nil {
			return Found[S]{}, fmt.Errorf("state of %s: %w", f.Live, err)
		}
		return f, nil
	}
	return Found[S]{}, fmt.Errorf("more than %d forward pointers from %s: %w", maxHops, key, errCorrupt)
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
