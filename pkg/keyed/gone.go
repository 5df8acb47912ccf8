package keyed

import (
	"encoding/json"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/topic"
)

// part ends a key for good: it was split, and all that was decided for it is told again for its parts, or it was erased.
// Whatever it held goes, also a payload that has not arrived yet; what still comes to it is dropped, and counted. A part
// that is split or erased takes the keys along that became it: where readers look on from these changes.
func (r *keyRun[S]) part(rec *Record) {
	h, dec := &r.h, &r.w.dec
	into, err := partedInto(rec)
	if err == nil && into == h.key {
		err = errors.New("a key can not become itself")
	}
	switch {
	case err != nil:
		r.d.s.metrics.poison.WithLabelValues(ReasonInvalidSplit).Inc()
		dec.outputs = append(dec.outputs, Reject(*rec, r.d.s.opt.Stage, ReasonInvalidSplit, err, r.d.s.opt.Topics))
		return
	case h.gone && h.forward == into:
		return // told twice
	}
	if seen := h.rev != "" || h.changed; seen && !h.frozen && h.bad == nil && r.d.freezer != nil {
		// What Freeze says is a word to others: a split is not lost for it.
		err := guarded(func() error {
			dec.outputs = append(dec.outputs, r.d.freezer.Freeze(h.key, "", h.s, r.now)...)
			return nil
		})
		if err != nil {
			r.d.s.poison.report(reasonFreezePanic, err, zap.String("key", h.key))
		}
	}
	*h.cell = cell{rev: h.rev, frozen: true, delivered: true, gone: true, forward: into}
	h.bad, h.changed, h.keep = nil, true, false
}

// partedInto reads the one field that this package must know of a record that ends its key: where readers look on.
func partedInto(rec *Record) (string, error) {
	var p struct {
		Into string `json:"into"`
	}
	if err := json.Unmarshal(rec.Value, &p); err != nil {
		return "", fmt.Errorf("read %s: %w", rec.Kind, err)
	}
	if rec.Kind == topic.KindSplit && p.Into == "" {
		return "", errors.New("read split: into is missing")
	}
	return p.Into, nil
}
