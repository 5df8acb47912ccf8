package keyed

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Why a partition is held: the label reason of weft_stage_held_since_seconds. The first are those of package
// store behind "redis_": redis_memory, redis_disk, redis_unreachable, ...
const (
	holdRedis       = "redis_"
	holdKafka       = "kafka"          // Kafka does not answer, or refuses
	holdFence       = "fence"          // only timers wait: the fence does not get through
	holdRecovering  = "recovering"     // a new owner finishes what it found in the slot
	holdStateLost   = "state_lost"     // the stage stops: Redis has lost writes
	holdNewer       = "newer_version"  // the stage stops: a newer binary wrote the state or the record
	holdRebuilding  = "rebuilding"     // the stage stops: it is being rebuilt
	holdContention  = "contention"     // somebody else is writing this slot
	holdPlanner     = "decision"       // the planner says no: what it stands on does not answer, or a defect
	holdOutOfLog    = "log_truncated"  // the stage stops: Kafka has deleted what is not applied yet
	kafkaPatience   = 10 * time.Second // Fetch and Produce try again by themselves: from here on it is a hold
	recoverPatience = 10 * time.Second // a slot's outbox is drained in less
	fencePatience   = 10 * time.Second // a walk takes a fraction of a second while nothing lags
)

// waiting is something that a worker may wait for inside a call, which is a hold when it takes long.
type waiting int

const (
	waitFetch   waiting = iota // an answer of Kafka to a fetch
	waitSend                   // Kafka's acknowledgement of outputs or of a commit
	waitRecover                // the recovery of the slot
	waitFence                  // a walk of the fence, for the oldest timer that is due
	waitings
)

// hold is why and since when a partition does not go on. The worker writes it, anybody reads.
type hold struct {
	mu     sync.Mutex
	since  [waitings]time.Time // zero: does not wait for it
	reason string              // of the error that holds; "": none does
	err    error
	began  time.Time // of the hold, over all reasons
}

// wait notes since when the worker waits for something; the zero time ends it.
func (h *hold) wait(what waiting, since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.since[what] = since
}

// set notes an error that holds.
func (h *hold) set(reason string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reason == "" {
		h.began = time.Now()
	}
	h.reason, h.err = reason, err
}

// clear notes that the worker has gone on, and says how long it was held, 0 if it was not.
func (h *hold) clear() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reason == "" {
		return 0
	}
	h.reason, h.err = "", nil
	return time.Since(h.began)
}

// now says why and since when the partition is held; ok is false if it is not. err is what holds it, if it was one.
func (h *hold) now() (reason string, since time.Time, ok bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reason != "" {
		return h.reason, h.began, true, h.err
	}
	for _, w := range []struct {
		what     waiting
		reason   string
		patience time.Duration
	}{
		{waitRecover, holdRecovering, recoverPatience}, {waitSend, holdKafka, kafkaPatience},
		{waitFetch, holdKafka, kafkaPatience}, {waitFence, holdFence, fencePatience},
	} {
		if t := h.since[w.what]; !t.IsZero() && time.Since(t) > w.patience {
			return w.reason, t, true, nil
		}
	}
	return "", time.Time{}, false, nil
}

// Sources of errors, by which a hold tells what it is that does not answer.
var (
	errKafka    = errors.New("kafka")
	errDecision = errors.New("decision")
)

// holdReason classifies an error of a worker.
func holdReason(err error) string {
	switch class := store.Class(err); {
	case errors.Is(err, ErrStateLost), errors.Is(err, store.ErrNonDurable):
		return holdStateLost
	case errors.Is(err, ErrNewerState), errors.Is(err, topic.ErrNewerSchema):
		return holdNewer
	case errors.Is(err, ErrRebuilding):
		return holdRebuilding
	case errors.Is(err, errRefused):
		return holdContention
	case errors.Is(err, stream.ErrOffsetOutOfRange):
		return holdOutOfLog
	case class != store.ClassOther && class != store.ClassCanceled:
		return holdRedis + class
	case errors.Is(err, errKafka):
		return holdKafka
	case errors.Is(err, errDecision):
		return holdPlanner
	default:
		return holdRedis + store.ClassOther
	}
}

// holds is the metric of a stage's holds, read when it is scraped: a worker that waits inside a call can not
// set a gauge.
type holds struct {
	s    *Stage
	desc *prometheus.Desc
}

func newHolds(s *Stage) *holds {
	return &holds{s: s, desc: prometheus.NewDesc("weft_stage_held_since_seconds",
		"Unix time since when a partition does not go on, by reason; absent while it does.",
		[]string{"partition", "reason"}, prometheus.Labels{"stage": s.opt.Stage})}
}

// Describe implements prometheus.Collector.
func (h *holds) Describe(ch chan<- *prometheus.Desc) { ch <- h.desc }

// Collect implements prometheus.Collector.
func (h *holds) Collect(ch chan<- prometheus.Metric) {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	for _, w := range h.s.workers {
		if reason, since, ok, _ := w.hold.now(); ok {
			ch <- prometheus.MustNewConstMetric(h.desc, prometheus.GaugeValue, float64(since.UnixMilli())/1000, w.label, reason)
		}
	}
}

// text is a hold in words; "" for none, and for one that only timers notice.
func (h *hold) text() string {
	reason, since, ok, err := h.now()
	if !ok || reason == holdFence {
		return ""
	}
	text := fmt.Sprintf("is held for %s: %s", time.Since(since).Truncate(time.Second), reason)
	if err != nil {
		text += ": " + err.Error()
	}
	return text
}
