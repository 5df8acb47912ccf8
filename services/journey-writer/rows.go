package writer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

// Reasons of records that this service cannot read.
const (
	reasonHeaders = "invalid_headers"
	reasonKey     = "invalid_profile_id"
	reasonKind    = "unknown_kind"
	reasonMerge   = "invalid_merge"
	reasonSplit   = "invalid_split"
	reasonRecord  = "invalid_record"
	reasonPanic   = "record_panic" // making its rows panicked: a defect
)

// maxPanicText bounds what a row of events_rejected tells of a panic: its value may be anything.
const maxPanicText = 500

// inserter stores blocks and tells what is stored.
type inserter interface {
	// Insert stores rows as one block per month: nil only when it is done, now or under the same token
	// before. warehouse.ErrDeadline: it was not sent. warehouse.ErrPermanent: it was refused for good. Any
	// other error: it may be done or not, and the same call may be made again. rows stay the caller's.
	Insert(ctx context.Context, rows warehouse.Rows, t warehouse.Token, now func() time.Time) error
	// StoredOffsets is which records of [from, to) have a row in the table that was inserted since a time.
	StoredOffsets(ctx context.Context, table, topicName string, partition int, from, to int64, since time.Time) (map[uint64]bool, error)
}

// poison is why a record cannot become the rows it should; it is permanent.
type poison struct {
	reason string
	err    error
}

func (p *poison) Error() string { return p.reason + ": " + p.err.Error() }
func (p *poison) Unwrap() error { return p.err }

// table is a block of any table.
type table interface {
	warehouse.Rows
	Skip(offsets map[uint64]bool)
	Truncate(rows int)
	Reset()
}

// adder takes rows; they may be used again after the call.
type adder[R any] interface{ Add(r *R) }

// tableRows is the rows of one topic. What its reader cannot read becomes a row of events_rejected in the
// same range, so that nothing is lost and nothing is stuck.
type tableRows struct {
	topic     string
	partition int
	read      func(r *stream.Record, m event.Meta) error
	renew     func()  // makes anew, after a panic, what read keeps from one record to the next; nil: nothing
	lenient   bool    // headers that cannot be read are taken for absent
	tables    []table // stored in this order, with rejected last
	rejected  adder[warehouse.Rejected]
	stored    func(t table) // after a block is stored
	poisoned  func()
	panicked  func(r *stream.Record, v any) // called while the stack is that of the panic
	to        inserter
	now       func() time.Time

	before []int // rows of each table before the record that is read
}

func (t *tableRows) add(r *stream.Record) error {
	meta, err := t.make(r)
	if p, ok := errors.AsType[*poison](err); ok {
		t.poisoned()
		t.rejected.Add(&warehouse.Rejected{
			Origin: originOf(r), Brand: meta.Brand, Source: meta.Source, Reason: p.reason, Error: p.err.Error(),
			Service: topic.StageWriter, From: r.Topic + ":" + strconv.Itoa(r.Partition) + ":" + strconv.FormatInt(r.Offset, 10),
			MessageID: meta.MessageID, ReceivedAt: meta.ReceivedAt, Historical: meta.Historical, Key: r.Key, Body: r.Value,
		})
		return nil
	}
	return err
}

// make adds the rows of a record. A panic is poison as well, since the record will panic again each time: what
// it has added to any table is taken back, so that a range has the same rows whoever reads it.
func (t *tableRows) make(r *stream.Record) (meta event.Meta, err error) {
	t.before = t.before[:0]
	for _, b := range t.tables {
		t.before = append(t.before, b.Rows())
	}
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		t.panicked(r, v)
		for i, b := range t.tables {
			b.Truncate(t.before[i])
		}
		if t.renew != nil {
			t.renew()
		}
		text := fmt.Sprint(v)
		err = &poison{reasonPanic, errors.New("panic: " + text[:min(len(text), maxPanicText)])}
	}()
	meta, err = topic.ViewMeta(r.Headers)
	switch {
	case errors.Is(err, topic.ErrNewerSchema):
		return meta, err
	case err != nil && !t.lenient:
		return meta, &poison{reasonHeaders, err}
	}
	return meta, t.read(r, meta)
}

func (t *tableRows) known(ctx context.Context, from, to int64, since time.Time) error {
	for _, b := range t.tables {
		offsets, err := t.to.StoredOffsets(ctx, b.Table(), t.topic, t.partition, from, to, since)
		if err != nil {
			return err
		}
		b.Skip(offsets)
	}
	return nil
}

func (t *tableRows) count() int {
	n := 0
	for _, b := range t.tables {
		n += b.Rows()
	}
	return n
}

// store inserts table by table, each under a token of its own: a retry after half of them stores the rest.
func (t *tableRows) store(ctx context.Context, token warehouse.Token) error {
	for _, b := range t.tables {
		own := token
		own.Text += ":" + b.Table()
		if err := t.to.Insert(ctx, b, own, t.now); err != nil {
			return err
		}
		t.stored(b)
	}
	return nil
}

func (t *tableRows) reset() {
	for _, b := range t.tables {
		b.Reset()
	}
}

func originOf(r *stream.Record) warehouse.Origin {
	return warehouse.Origin{Topic: r.Topic, Partition: uint32(r.Partition), Offset: uint64(r.Offset)} //nolint:gosec // Kafka's are not negative
}

// profileID reads a record's key.
func profileID(r *stream.Record) (uuid.UUID, error) {
	id, err := uuid.ParseBytes(r.Key)
	if err != nil {
		return id, &poison{reasonKey, fmt.Errorf("key %.60q: %w", r.Key, err)}
	}
	return id, nil
}

// rowsOf makes the tables of a topic.
func rowsOf(k kind) *tableRows {
	rejected := warehouse.RejectedEvents().NewBlock()
	t := &tableRows{rejected: rejected}
	switch k {
	case kindEvents:
		events, identities, redirects, moves := warehouse.Events().NewBlock(), warehouse.Identities().NewBlock(), warehouse.Redirects().NewBlock(), warehouse.Moves().NewBlock()
		parts, messages := warehouse.EventParts().NewBlock(), warehouse.MessageParts().NewBlock()
		f := &eventRows{}
		t.renew = func() {
			*f = eventRows{events: events, identities: identities, redirects: redirects, moves: moves, parts: parts, messages: messages}
		}
		t.renew()
		// The redirects last: they have the persons loaded anew, and whoever sees today's person can then ask why.
		t.read, t.tables = f.read, []table{events, identities, moves, messages, parts, redirects}
	case kindRejected:
		// Such headers may be why the record was rejected: the stage's reason and origin must not be lost over them.
		t.read, t.lenient = func(r *stream.Record, m event.Meta) error { return readRejected(rejected, r, m) }, true
	case kindProfiles:
		b := warehouse.Profiles().NewBlock()
		t.read, t.tables = func(r *stream.Record, _ event.Meta) error { return readProfile(b, r) }, []table{b}
	case kindAudiences:
		b := warehouse.AudienceChanges().NewBlock()
		t.read, t.tables = func(r *stream.Record, m event.Meta) error { return readAudience(b, r, m) }, []table{b}
	case kindRequested:
		b := warehouse.Messages().NewBlock()
		t.read, t.tables = func(r *stream.Record, _ event.Meta) error { return readMessage(b, r) }, []table{b}
	case kindSettled:
		b := warehouse.Receipts().NewBlock()
		t.read, t.tables = func(r *stream.Record, _ event.Meta) error { return readReceipt(b, r) }, []table{b}
	case kindLinked:
		suspensions, commands := warehouse.Suspensions().NewBlock(), warehouse.Commands().NewBlock()
		f := &linkRows{suspensions: suspensions, commands: commands}
		t.read, t.tables = f.read, []table{suspensions, commands}
	}
	t.tables = append(t.tables, rejected)
	return t
}

// readRejected takes a record of events.rejected as it is: the body may be anything.
func readRejected(b adder[warehouse.Rejected], r *stream.Record, m event.Meta) error {
	row := warehouse.Rejected{
		Origin: originOf(r), Brand: m.Brand, Source: m.Source, MessageID: m.MessageID, ReceivedAt: inRange(m.ReceivedAt),
		Historical: m.Historical, Key: r.Key, Body: r.Value,
	}
	row.Reason, _ = topic.Get(r.Headers, topic.HeaderReason)
	row.Error, _ = topic.Get(r.Headers, topic.HeaderError)
	row.Service, _ = topic.Get(r.Headers, topic.HeaderService)
	row.From, _ = topic.Get(r.Headers, topic.HeaderOrigin)
	b.Add(&row)
	return nil
}
