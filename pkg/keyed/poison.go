package keyed

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Reasons of this package on events.rejected. A record is rejected by them when the code that folds it fails
// on it in the same way each time, so that holding the partition would hold it for ever.
const (
	// ReasonInvalidHeader: a header of the record can not be read.
	ReasonInvalidHeader = "invalid_header"
	// ReasonInvalidMerge: a merge record does not name another key.
	ReasonInvalidMerge = "invalid_merge"
	// ReasonInvalidSplit: a record that splits or erases its key can not be read.
	ReasonInvalidSplit = "invalid_split"
	// ReasonFoldPanic: folding the record, or what follows from it, panicked. A defect.
	ReasonFoldPanic = "fold_panic"
	// ReasonPlanPanic: planning a batch of this record alone panicked. A defect.
	ReasonPlanPanic = "plan_panic"
	// ReasonStateTooLarge: with the record the state of its key would be larger than Options.MaxState.
	ReasonStateTooLarge = "state_too_large"
	// ReasonStateUnencodable: with the record the state can not be encoded. A defect.
	ReasonStateUnencodable = "state_unencodable"
	// ReasonStateUnreadable: the state of the record's key can not be decoded.
	ReasonStateUnreadable = "state_unreadable"
	// ReasonOutputTooLarge: Kafka refuses an output for its size. What is left of it is on events.rejected.
	ReasonOutputTooLarge = "output_too_large"

	// What else weft_stage_poison_total counts by; these do not reject a record.
	reasonTimerPanic  = "timer_panic"
	reasonMergePanic  = "merge_panic"
	reasonFreezePanic = "freeze_panic"
)

// poisonReasons are the values of the label reason of weft_stage_poison_total.
var poisonReasons = []string{
	ReasonInvalidHeader, ReasonInvalidMerge, ReasonInvalidSplit, ReasonFoldPanic, ReasonPlanPanic, ReasonStateTooLarge,
	ReasonStateUnencodable, ReasonStateUnreadable, ReasonOutputTooLarge, reasonTimerPanic, reasonMergePanic, reasonFreezePanic,
}

// PanicError is a panic of a fold or planner, caught. What can not be caught (a deadlock, a concurrent map
// write, no memory, a panic in a goroutine that a planner started) ends the process.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// caught makes an error of what recover returned, called by the deferred function itself.
func caught(v any) *PanicError { return &PanicError{Value: v, Stack: debug.Stack()} }

// guarded calls fn and returns its error, or its panic as a *PanicError.
func guarded(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = caught(v)
		}
	}()
	return fn()
}

// tooLargeError says that a state has outgrown its bound.
type tooLargeError struct{ size, bound int }

func (e *tooLargeError) Error() string {
	return fmt.Sprintf("state would be %d bytes, the most is %d", e.size, e.bound)
}

// poisonReason is the reason for what writing a state ran into.
func poisonReason(err error) string {
	var large *tooLargeError
	var panicked *PanicError
	switch {
	case errors.As(err, &large):
		return ReasonStateTooLarge
	case errors.As(err, &panicked):
		return ReasonFoldPanic
	default:
		return ReasonStateUnencodable
	}
}

// poisonLogEvery spaces the log lines about poison of one stage: a defect that strikes every record must not
// write a stack for each. The counter counts all of them.
const poisonLogEvery = 10 * time.Second

// poisonLog writes some of what is poison to the log. It is safe for concurrent use.
type poisonLog struct {
	log     *zap.Logger
	metrics *metrics

	mu      sync.Mutex
	written time.Time
	unsaid  int
}

// report counts what was met and, now and then, logs it.
func (p *poisonLog) report(reason string, err error, fields ...zap.Field) {
	p.metrics.poison.WithLabelValues(reason).Inc()
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if !p.written.IsZero() && now.Sub(p.written) < poisonLogEvery {
		p.unsaid++
		return
	}
	fields = append(fields, zap.String("reason", reason), zap.Error(err), zap.Int("unsaid_before", p.unsaid))
	var panicked *PanicError
	if errors.As(err, &panicked) {
		fields = append(fields, zap.ByteString("stack", panicked.Stack))
	}
	p.log.Error("poison is set aside", fields...)
	p.written, p.unsaid = now, 0
}
