package keyed

import (
	"maps"
	"time"

	"go.uber.org/zap"
)

const (
	// hotShare is the share of a partition's records from which one key is reported: with 12 partitions a key
	// that has a quarter of one has 2 % of all traffic, which no customer makes.
	hotShare = 0.25
	// hotWindow is the time over which the share is taken, and so how often a partition reports at most.
	hotWindow = 10 * time.Second
	// hotRecords is the least number of records in a window to judge: a lone visitor is no hot key.
	hotRecords = 1000
	// hotNotice is the share of one batch from which a key is counted. A key with hotShare of a window has
	// that share of some batches, and a batch has few such keys: counting is cheap and bounded.
	hotNotice = hotShare / 4
	// hotKeys bounds the keys that are counted in one window.
	hotKeys = 256
)

// hotWatch finds keys that take more than their share of a partition.
type hotWatch struct {
	began   time.Time
	records int
	counts  map[string]int
}

// batch takes in what a batch held. It costs a look at each key's count.
func (h *hotWatch) batch(in *intake) {
	h.records += len(in.recs)
	floor := max(2, int(hotNotice*float64(len(in.recs))))
	for i := range in.works {
		if w := &in.works[i]; w.records >= floor {
			if h.counts == nil {
				h.counts = map[string]int{}
			}
			if _, ok := h.counts[w.key]; ok || len(h.counts) < hotKeys {
				h.counts[w.key] += w.records
			}
		}
	}
}

// hottest ends the window if it is over, and returns its busiest key and that one's share.
func (h *hotWatch) hottest(now time.Time) (key string, share float64, over bool) {
	if h.began.IsZero() {
		h.began = now
	}
	if now.Sub(h.began) < hotWindow {
		return "", 0, false
	}
	if h.records >= hotRecords {
		most := 0
		for k, n := range maps.All(h.counts) {
			if n > most {
				key, most = k, n
			}
		}
		share = float64(most) / float64(h.records)
	}
	clear(h.counts)
	h.began, h.records = now, 0
	return key, share, true
}

// watchHot reports a key that takes more than hotShare of this partition. Nothing is held back for it: its
// records keep their order, and those of others between them too; what it costs them is lag, and this says why.
func (w *worker) watchHot(in *intake) {
	w.hot.batch(in)
	key, share, over := w.hot.hottest(time.Now())
	if !over {
		return
	}
	w.hotShare.Set(share)
	if share > hotShare {
		w.s.metrics.hot.Inc()
		w.log.Warn("one key takes a large share of a partition", zap.String("key", key), zap.Float64("share", share))
	}
}
