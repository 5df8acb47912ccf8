package writer

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/pkg/warehouse/memory"
)

// This file simulates one partition with its group and its tables. Every call of an owner to the outside is
// a step at which the schedule may kill it, let another take over, lose the answer, or let the request
// arrive late. Only one goroutine runs at a time and all choices are drawn by rapid, so a schedule can be
// repeated and is made smaller when it fails.

// outcome is what becomes of one call.
type outcome int

const (
	goesWell   outcome = iota
	fails              // not done, an error
	answerLost         // done, an error
	comesLate          // an error now, done later
	halfDone           // the server dies in the middle of an insert over several months
	killBefore         // the owner dies, not done
	killAfter          // the owner dies, done
)

// world is the outside: a log, a group, a ClickHouse.
type world struct {
	t      *rapid.T
	now    time.Time
	recs   []stream.Record
	gen    int
	offset int64
	meta   string

	server *memory.Server // its clock is now
	window int
	pool   *pool
	late   []func()
	owners []*actor
	calm   bool // no more faults
	limits limits
	log    []string
}

// simTables is the tables that the records of the log go to.
var simTables = []string{warehouse.TableEvents, warehouse.TableIdentities, warehouse.TableMoves, warehouse.TableRedirects, warehouse.TableRejected, warehouse.TableEventParts}

// The persons of merges: the winner comes before the loser.
const simWinner, simLoser = "00000000-0000-8000-8000-000000000001", "30000000-0000-8000-8000-000000000002"

// simMerge is a merge without evidence: one row in each of three tables.
const simMerge = `{"loser":"` + simLoser + `","winner":"` + simWinner + `","members":["` + simLoser + `"],"version":2,
	"cause":{"source":"x","messageId":"m","rule":"alias","time":"2026-01-01T00:00:00.000Z"},"evidence":[]}`

// simRecord is record n of its source: an event, a merge, an event that a split tells again, or one that nobody can read.
func simRecord(n int64, hs ...topic.Header) stream.Record {
	at := time.Date(2026, time.Month(1+n%2), 1, 0, 0, 0, 0, time.UTC)
	hs = append(hs, topic.Header{Key: topic.HeaderReceivedAt, Value: strconv.AppendInt(nil, at.UnixMilli(), 10)})
	switch {
	case n%3 == 1:
		return stream.Record{Topic: "t", Key: []byte(simLoser), Value: []byte(simMerge), Headers: append(hs, topic.Header{Key: topic.HeaderKind, Value: []byte(topic.KindMerge)})}
	case n%5 == 4:
		return stream.Record{Topic: "t", Key: []byte(simWinner), Value: []byte(`{"type":"page"}`), Headers: append(hs,
			topic.Header{Key: topic.HeaderRefold, Value: []byte("c1")}, topic.Header{Key: topic.HeaderOrigin, Value: []byte("t:0:7")})}
	case n%7 == 2:
		return stream.Record{Topic: "t", Key: []byte(person), Value: []byte(`{"type":`), Headers: hs}
	}
	return stream.Record{Topic: "t", Key: []byte(person), Value: []byte(`{"type":"page"}`), Headers: hs}
}

// tablesOf is which tables get a row of a record.
func tablesOf(r *stream.Record) []string {
	kind, _ := topic.Get(r.Headers, topic.HeaderKind)
	switch {
	case kind == string(topic.KindMerge):
		return simTables[1:4]
	case string(r.Value) == `{"type":`:
		return simTables[4:5]
	}
	if _, again := topic.Get(r.Headers, topic.HeaderRefold); again {
		return simTables[5:]
	}
	return simTables[:1]
}

// actor is one owner in its goroutine.
type actor struct {
	w      *world
	gen    int
	asks   chan string  // it wants to make a call, or has ended ("")
	answer chan outcome // how that goes
	cancel context.CancelFunc
	ended  bool
	err    error
}

func (w *world) trace(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

// step hands the turn to the schedule and waits for the outcome of a call.
func (a *actor) step(what string) outcome {
	a.asks <- what
	o := <-a.answer
	if o == killBefore {
		runtime.Goexit()
	}
	return o
}

// call is one request to the outside.
func (a *actor) call(what string, do func() error) error {
	return a.become(a.step(what), do)
}

// become has a request end as the schedule wants it.
func (a *actor) become(o outcome, do func() error) error {
	switch o {
	case fails:
		return errors.New("connection refused")
	case answerLost, killAfter:
		_ = do()
	case comesLate:
		a.w.late = append(a.w.late, func() { _ = do() })
	default:
		return do()
	}
	if o == killAfter {
		runtime.Goexit()
	}
	return errors.New("connection reset by peer")
}

// Commit is claim's.
func (a *actor) Commit(_ context.Context, offset int64, metadata string) error {
	w := a.w
	return a.call("commit", func() error {
		if w.gen != a.gen {
			w.trace("commit %d of generation %d is refused", offset, a.gen)
			return stream.ErrFenced
		}
		w.offset, w.meta = offset, metadata
		w.trace("generation %d commits %d", a.gen, offset)
		return nil
	})
}

// simSource is a fetcher of the world's log.
type simSource struct {
	a    *actor
	from int64
}

func (s *simSource) Close() {}

// Fetch is source's: at most three records, and none takes the whole wait.
func (s *simSource) Fetch(ctx context.Context, maxWait time.Duration) (stream.Batch, error) {
	w := s.a.w
	err := s.a.call("fetch", func() error { return nil })
	if err != nil {
		return stream.Batch{}, err
	}
	if ctx.Err() != nil {
		return stream.Batch{}, ctx.Err()
	}
	end := min(s.from+3, int64(len(w.recs)))
	b := stream.Batch{Records: slices.Clone(w.recs[s.from:end]), Next: end, HighWatermark: int64(len(w.recs))}
	if end == s.from {
		w.now = w.now.Add(maxWait)
	}
	s.from = end
	return b, nil
}

// fault is what a request to ClickHouse meets.
func (a *actor) fault(_ context.Context, c *memory.Call) error {
	o := a.step(string(c.Op))
	if o == halfDone {
		a.w.trace("insert %s into %s is stored for one of %d months", c.Token, c.Table, c.Blocks)
		return c.DoHalf(1)
	}
	return a.become(o, func() error {
		err := c.Do()
		if c.Op == memory.OpInsert {
			a.w.trace("insert %s into %s, %d rows: %v", c.Token, c.Table, c.Rows, err)
		}
		return err
	})
}

// checked is the clock of an insert, read right before it is sent. Time may have passed before that; from
// then on the server's limit counts.
func (a *actor) checked() time.Time {
	if a.step("think") == killAfter {
		runtime.Goexit()
	}
	return a.w.now
}

// wholeLog is a log of which nothing was ever deleted.
type wholeLog struct{}

func (wholeLog) StartOffsets(context.Context, string) ([]int64, error) { return []int64{0}, nil }

// join starts a new owner in a new generation; the one before may not know yet.
func (w *world) join() {
	w.gen++
	ctx, cancel := context.WithCancel(context.Background())
	a := &actor{w: w, gen: w.gen, asks: make(chan string), answer: make(chan outcome), cancel: cancel}
	m, err := newMetrics(nil)
	require.NoError(w.t, err)
	clock := func() time.Time { return w.now }
	clickHouse := w.server.Client(a.fault)
	rows := &sharedRows{pool: w.pool, topic: "t", to: clickHouse, now: a.checked, stored: func(table) {}, poisoned: func() {}}
	o := &owner{
		topic: "t", partition: 0, claim: a, bounds: &logBounds{wholeLog{}, w.server.Client(nil), "t", 0, kindEvents.tables()}, rows: rows, memory: &openBytes{}, limits: w.limits, now: clock,
		open:    func(from int64) source { return &simSource{a, from} },
		log:     zap.NewNop(),
		metrics: m.partition("t", 0, clock),
		pause: func(ctx context.Context, d time.Duration) bool {
			if d > 0 {
				_ = a.step("pause")
				w.now = w.now.Add(d)
			}
			return ctx.Err() == nil
		},
	}
	offset, meta := w.offset, w.meta
	w.trace("generation %d begins at %d", w.gen, offset)
	go func() {
		defer func() { a.ended = true; close(a.asks) }()
		a.err = o.run(ctx, offset, meta)
	}()
	w.owners = append(w.owners, a)
	w.settle(a)
}

// settle waits until a asks for something or has ended.
func (w *world) settle(a *actor) {
	if _, more := <-a.asks; !more {
		w.owners = slices.DeleteFunc(w.owners, func(x *actor) bool { return x == a })
		w.trace("generation %d ended: %v", a.gen, a.err)
		a.cancel()
	}
}

// turn lets a make its call.
func (w *world) turn(a *actor) {
	o := goesWell
	if !w.calm {
		o = rapid.SampledFrom([]outcome{goesWell, goesWell, goesWell, goesWell, goesWell, goesWell,
			fails, answerLost, comesLate, halfDone, killBefore, killAfter}).Draw(w.t, "outcome")
	}
	w.now = w.now.Add(time.Second)
	w.foreign(1)
	a.answer <- o
	w.settle(a)
}

// foreign is the inserts of other partitions into the same tables, one per second.
func (w *world) foreign(n int) {
	for _, table := range simTables {
		w.server.Forget(table, n)
	}
}

// kill ends all owners where they are.
func (w *world) kill() {
	for _, a := range w.owners {
		a.cancel()
		a.answer <- killBefore
		for range a.asks {
		}
	}
	w.owners = nil
}

// expire has nobody write for so long that the group's offsets are gone, and no token is known.
func (w *world) expire() {
	w.kill()
	for _, do := range w.late {
		do()
	}
	w.late = nil
	w.now = w.now.Add(8 * 24 * time.Hour)
	w.foreign(w.window)
	w.offset, w.meta = -1, ""
	w.trace("the group's offsets are gone")
	w.join()
}

func (w *world) produce() {
	n := rapid.IntRange(1, 4).Draw(w.t, "records")
	for range n {
		if rapid.IntRange(0, 5).Draw(w.t, "position") > 0 {
			// What a stage publishes again after a crash is the tail of what it published, in order.
			part := rapid.IntRange(0, 1).Draw(w.t, "source")
			top := int64(0)
			for i := range w.recs {
				if p, ok := position(&w.recs[i]); ok && p.Partition == part {
					top = max(top, p.Seq+1)
				}
			}
			back := rapid.Int64Range(0, min(top, 3)).Draw(w.t, "back")
			for seq := top - back; seq <= top; seq++ {
				at := topic.Position{Stage: "s", Partition: part, Seq: seq}
				w.append(simRecord(seq, topic.Header{Key: topic.HeaderPosition, Value: []byte(at.String())}))
			}
			continue
		}
		w.append(simRecord(int64(len(w.recs))))
	}
}

func (w *world) append(r stream.Record) {
	r.Offset = int64(len(w.recs))
	w.recs = append(w.recs, r)
}

// check: every source position once, every record without one once, in each of its tables.
func (w *world) check() {
	key := func(table string, off int64) string {
		if p, ok := position(&w.recs[off]); ok {
			return p.String() + " in " + table
		}
		return "offset " + strconv.FormatInt(off, 10) + " in " + table
	}
	seen := map[string]int{}
	for _, table := range simTables {
		for _, row := range w.server.Rows(table) {
			seen[key(table, int64(row.Offset))]++ //nolint:gosec // small
		}
	}
	want := map[string]bool{}
	for i := range w.recs {
		for _, table := range tablesOf(&w.recs[i]) {
			k := key(table, int64(i))
			want[k] = true
			require.Equal(w.t, 1, seen[k], "%s stored %d times\n%v", k, seen[k], w.log)
		}
	}
	require.Len(w.t, seen, len(want))
}

func simulate(t *rapid.T) {
	l := limits{rows: 4, bytes: 400, flush: 3 * time.Second, insert: 10 * time.Second, deadline: 20 * time.Second, grace: time.Hour}
	w := &world{t: t, now: time.Unix(1e9, 0), offset: -1, limits: l, pool: newPool(kindEvents)}
	// A block for each month, and what pauses and waits of one step add.
	w.window = 2*int((l.deadline+l.insert)/time.Second) + 15
	w.server = memory.NewServer(memory.Options{Window: w.window, Now: func() time.Time { return w.now }})
	require.NoError(t, w.server.Client(nil).Migrate(t.Context(), nil, nil))
	defer w.kill() // a failed check leaves some behind
	w.produce()
	w.join()
	for range rapid.IntRange(5, 120).Draw(t, "steps") {
		switch n := rapid.IntRange(0, 19).Draw(t, "next"); {
		case n < 3:
			w.produce()
		case n == 3: // a rebalance; the old owner may hear of it now, or stay a zombie
			if len(w.owners) > 0 && rapid.Bool().Draw(t, "told") {
				w.owners[len(w.owners)-1].cancel()
			}
			w.join()
		case n == 4 && len(w.late) > 0:
			i := rapid.IntRange(0, len(w.late)-1).Draw(t, "late")
			do := w.late[i]
			w.late = slices.Delete(w.late, i, i+1)
			do()
		case n == 5: // time passes, for all
			d := rapid.IntRange(1, 60).Draw(t, "seconds")
			w.now = w.now.Add(time.Duration(d) * time.Second)
			w.foreign(d)
		case n == 6 && rapid.Bool().Draw(t, "expired"):
			w.expire()
		case len(w.owners) > 0:
			w.turn(w.owners[rapid.IntRange(0, len(w.owners)-1).Draw(t, "who")])
		default:
			w.join()
		}
	}
	// No more faults: what is late arrives, zombies wake, and the last owner finishes.
	w.calm = true
	for rounds := 0; ; rounds++ {
		require.Less(t, rounds, 10_000, "%v", w.log)
		if len(w.late) > 0 {
			do := w.late[0]
			w.late = w.late[1:]
			do()
		}
		if len(w.owners) == 0 {
			w.join()
		}
		done := w.offset == int64(len(w.recs)) && len(w.late) == 0 && len(w.owners) == 1
		if done {
			break
		}
		w.turn(w.owners[rounds%len(w.owners)])
		if a := w.owners; len(a) > 1 && a[0].gen < w.gen { // a member that is not in the group hears of it
			a[0].cancel()
		}
	}
	w.check()
}

// Whatever is killed, frozen, lost or late: every record is stored exactly once.
func TestEveryRecordIsStoredOnceUnderFaults(t *testing.T) {
	rapid.Check(t, simulate)
}
