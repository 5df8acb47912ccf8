package keyed

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Record is one record of the input, its headers read.
type Record struct {
	stream.Record
	Kind     topic.Kind
	Position topic.Position // zero: the writer gave none
	Meta     event.Meta
	Refold   bool // told again, for the state of its key: see package doc
}

// Output is one record to publish. It leaves with the slot's source position as a header.
type Output struct {
	Topic   string
	Key     string
	Headers []topic.Header // without weft-position
	Value   []byte         // nil: a tombstone, unless PassThrough

	// PassThrough publishes the value of the input record at Offset; the outbox stores the reference
	// only. Headers of that record go along, unless Headers has the same key.
	PassThrough bool
	Offset      int64
}

// Fold says what records do to a state. It is pure: the same state, record and clock reading give the
// same result; it is called again for the same record after a refusal. key is the input record's key.
//
// S is stored as JSON, or by encoding.BinaryAppender (or BinaryMarshaler) and BinaryUnmarshaler where *S has
// them; UnmarshalBinary must then also read what every older version has written, and must not keep the bytes.
// The zero value of S is the state of a key never seen. A pointer to a state is good for the call only.
//
// A method that panics does not stop the partition: the record is rejected (ReasonFoldPanic), the timer or merge
// is set aside and tried again with growing pauses. See the package's doc.
type Fold[S any] interface {
	// Apply folds one record of this key. What it returns for a record that is told again (Record.Refold) is published
	// for kind refolded only.
	Apply(key string, s *S, r Record, now time.Time) []Output
	// Due says when this state next wants to be woken.
	Due(s *S) (time.Time, bool)
	// Timer is called behind the fence for what was due at now; afterwards Due must be later than now.
	Timer(key string, s *S, now time.Time) []Output
	// Merge takes in the state of a key that turned out to be the same. It must be commutative and
	// associative; that it happens once is this package's business.
	Merge(key string, into *S, from S, now time.Time) []Output
}

// Settler is implemented by a fold that wants a last word per changed live key and script, for outputs
// that are wanted once per batch instead of once per record.
type Settler[S any] interface {
	Settle(key string, s *S, now time.Time) []Output
}

// Freezer is implemented by a fold with something to say when a key was merged into another, such as a
// tombstone for the key's last output. s is the state that moves away and must not be changed. into is "" for a key that
// is gone: its state moves nowhere.
type Freezer[S any] interface {
	Freeze(key, into string, s *S, now time.Time) []Output
}

// Planner is the lower door, for stages whose decisions are not a state per key.
type Planner interface {
	// Plan decides a batch. After a crash or a refusal it is called again for the same records; what an
	// earlier call returned is in force only if its change was accepted. An error holds the partition
	// and is tried again with back-off: poison is not an error but an Output made by Reject.
	Plan(ctx context.Context, slot Slot, batch []Record) (Change, error)
	// Published is called when outs are in Kafka and before they are forgotten, also for those a crash
	// left in the slot, where it may come a second time. Values of passed-through outputs may be nil.
	Published(ctx context.Context, slot Slot, outs []Output) error
}

// Change is what a Planner decided for a batch.
type Change struct {
	Outputs []Output
	// SeenIDs are remembered from SeenAt on for at least SeenWindow, in the same script.
	SeenIDs    [][]byte
	SeenAt     time.Time
	SeenWindow time.Duration
}

// Deps are the parts a stage stands on. All but Metrics and Now are required.
type Deps struct {
	Stream  *stream.Client
	Store   *store.Client
	Log     *zap.Logger
	Metrics prometheus.Registerer // nil: not measured
	Now     func() time.Time      // nil: time.Now
}

// Options name a stage.
type Options struct {
	Stage  string // one of topic.Stage*
	Input  string // input topic
	Topics topic.Set
	// BatchRecords is the most records per script; 0: defaultBatchRecords.
	BatchRecords int
	// Fence holds timers back; nil for a stage without timers.
	Fence *Fence
	// Admit, if set, is asked before the stage reads anything, again and again until it says nil. An error
	// that wraps stream.ErrStop ends the stage.
	Admit func(context.Context) error
	// Waits, if set, says of a key never seen that all before it will be told again, up to a record of kind refolded: until
	// then it has no last word (Settler), and its timers do not fire.
	Waits func(key string) bool
	// StateVersion is the version of S as this binary writes it. A newer one in Redis stops the stage.
	StateVersion int
	// MaxState is the most bytes that a state may have when a record was folded into it; with more the record is
	// rejected. 0: defaultMaxState. A merge may make it up to mergeRoom times as large.
	MaxState int
}

const (
	// defaultMaxState is several times the largest state known to be honest (a customer with 2,000 orders has
	// about 300 kB). A state is read and written whole for each batch that touches it, so one of a mebibyte costs
	// milliseconds of Redis each time.
	defaultMaxState = 1 << 20
	// mergeRoom is what a merge may make of states that are within MaxState each: no record is at fault, and
	// dropping one of two histories would be worse than a large state for a while.
	mergeRoom = 16
)

// defaultBatchRecords keeps a script near 500 keys: a script over 5,000 keys was seen to block Redis for
// 85 ms, and below 5 keys the fsync dominates.
const defaultBatchRecords = 500

func (o *Options) validate() error {
	var errs []error
	if o.Stage == "" || o.Input == "" {
		errs = append(errs, errors.New("stage and input must be named"))
	}
	if o.Topics.Partitions <= 0 {
		errs = append(errs, fmt.Errorf("partitions: %d is not above 0", o.Topics.Partitions))
	}
	if o.BatchRecords == 0 {
		o.BatchRecords = defaultBatchRecords
	}
	if o.MaxState == 0 {
		o.MaxState = defaultMaxState
	}
	if o.MaxState < 0 {
		errs = append(errs, fmt.Errorf("largest state: %d is not above 0", o.MaxState))
	}
	if o.BatchRecords < 0 {
		errs = append(errs, fmt.Errorf("batch_records: %d is not above 0", o.BatchRecords))
	}
	return errors.Join(errs...)
}

// Errors that stop a stage for good; a person must look.
var (
	// ErrStateLost: Redis holds less than it had acknowledged. A replay would lose and double.
	ErrStateLost = errors.New("redis has lost acknowledged state of this stage: stop it everywhere and run 'weft rebuild' for it (docs/operate.md)")
	// ErrRebuilding: a rebuild of the stage is under way, or was cut off.
	ErrRebuilding = errors.New("this stage is being rebuilt, or its rebuild was cut off: let 'weft rebuild' end, or run it again")
	// ErrNewerState: a newer binary has written this state.
	ErrNewerState = errors.New("state was written by a newer version of weft")
	// ErrPartitionCount: the deployment was made with another partition count.
	ErrPartitionCount = errors.New("partition count differs from the deployment's")
)

// Reject turns a poison record into an output to events.rejected: the bytes and headers as they came, the
// reason (a stable code) and the error in words, cut where Kafka would refuse more. It is published exactly once
// in effect like any output.
func Reject(r Record, stage, reason string, err error, t topic.Set) Output {
	origin := r.Topic + ":" + strconv.Itoa(r.Partition) + ":" + strconv.FormatInt(r.Offset, 10)
	hs := make([]topic.Header, 0, len(r.Headers)+4)
	for _, h := range r.Headers {
		if h.Key != topic.HeaderPosition {
			hs = append(hs, h)
		}
	}
	hs = append(hs, reasons(reason, stage, origin, err)...)
	return Output{Topic: t.EventsRejected(), Key: string(r.Key), Value: fitted(r.Key, r.Value, hs), Headers: hs}
}
