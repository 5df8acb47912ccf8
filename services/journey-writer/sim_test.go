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
	killBefore         // the owner dies, not done
	killAfter          // the owner dies, done
)

// world is the outside: a log, a group, a table.
type world struct {
	t      *rapid.T
	now    time.Time
	recs   []stream.Record
	gen    int
	offset int64
	meta   string

	tokens map[string][]string // by table
	window int
	stored map[string][]simRow // by table
	late   []func()
	owners []*actor
	calm   bool // no more faults
	limits limits
	log    []string
}

// simRow is a row: the record it was made from, and when it was inserted.
type simRow struct {
	offset int64
	at     time.Time
}

// simTables is the tables in the order in which a range is stored.
var simTables = []string{"events", "identities", "redirects"}

// tablesOf is which tables get a row of a record: every third is a merge.
func tablesOf(r *stream.Record) []string {
	n := r.Offset
	if p, ok := position(r); ok {
		n = p.Seq
	}
	if n%3 == 1 {
		return simTables[1:]
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
	o := a.step(what)
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

// simRows stores offsets.
type simRows struct {
	a       *actor
	offsets map[string][]int64
	skip    map[string]map[int64]bool
}

func (r *simRows) add(rec *stream.Record) error {
	for _, table := range tablesOf(rec) {
		if !r.skip[table][rec.Offset] {
			r.offsets[table] = append(r.offsets[table], rec.Offset)
		}
	}
	return nil
}
func (r *simRows) known(_ context.Context, from, to int64, since time.Time) error {
	for _, table := range simTables {
		err := r.a.call("read back", func() error {
			r.skip[table] = map[int64]bool{}
			for _, row := range r.a.w.stored[table] {
				if row.offset >= from && row.offset < to && !row.at.Before(since) {
					r.skip[table][row.offset] = true
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
func (r *simRows) count() int {
	n := 0
	for _, offsets := range r.offsets {
		n += len(offsets)
	}
	return n
}
func (r *simRows) reset() {
	r.offsets, r.skip = map[string][]int64{}, map[string]map[int64]bool{}
}

// store is rows': table by table.
func (r *simRows) store(_ context.Context, token warehouse.Token) error {
	for _, table := range simTables {
		if err := r.insert(table, slices.Clone(r.offsets[table]), token); err != nil {
			return err
		}
	}
	return nil
}

// insert is warehouse.Client's: the deadline is checked right before the insert leaves, and the server
// refuses one that is older than its limit when it gets to it.
func (r *simRows) insert(table string, offsets []int64, token warehouse.Token) error {
	w := r.a.w
	if len(offsets) == 0 {
		return nil
	}
	if o := r.a.step("think"); o == killAfter {
		runtime.Goexit()
	}
	if w.now.After(token.Deadline) {
		return warehouse.ErrDeadline
	}
	sent := w.now
	return r.a.call("insert", func() error {
		if w.now.After(sent.Add(token.Limit)) {
			return errors.New("time limit exceeded")
		}
		from := max(0, len(w.tokens[table])-w.window)
		if slices.Contains(w.tokens[table][from:], token.Text) {
			w.trace("insert %s into %s is known", token.Text, table)
			return nil
		}
		w.tokens[table] = append(w.tokens[table], token.Text)
		for _, off := range offsets {
			w.stored[table] = append(w.stored[table], simRow{off, w.now})
		}
		w.trace("insert %s into %s: %v", token.Text, table, offsets)
		return nil
	})
}

// simBounds: nothing was ever deleted, and what is stored is the world's; without one, nothing.
type simBounds struct{ w *world }

func (simBounds) start(context.Context) (int64, error) { return 0, nil }
func (b simBounds) stored(context.Context) (int64, bool, error) {
	highest := int64(-1)
	if b.w != nil {
		for _, rows := range b.w.stored {
			for _, row := range rows {
				highest = max(highest, row.offset)
			}
		}
	}
	return highest, highest >= 0, nil
}

// join starts a new owner in a new generation; the one before may not know yet.
func (w *world) join() {
	w.gen++
	ctx, cancel := context.WithCancel(context.Background())
	a := &actor{w: w, gen: w.gen, asks: make(chan string), answer: make(chan outcome), cancel: cancel}
	m, err := newMetrics(nil)
	require.NoError(w.t, err)
	clock := func() time.Time { return w.now }
	rows := &simRows{a: a}
	rows.reset()
	o := &owner{
		topic: "t", partition: 0, claim: a, bounds: simBounds{w}, rows: rows, limits: w.limits, now: clock,
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
			fails, answerLost, comesLate, killBefore, killAfter}).Draw(w.t, "outcome")
	}
	w.now = w.now.Add(time.Second)
	w.foreign(1)
	a.answer <- o
	w.settle(a)
}

// foreign is the inserts of other partitions into the same tables, one per second.
func (w *world) foreign(n int) {
	for range n {
		for _, table := range simTables {
			w.tokens[table] = append(w.tokens[table], "other:"+strconv.Itoa(len(w.tokens[table])))
		}
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
		r := stream.Record{Topic: "t", Offset: int64(len(w.recs)), Value: []byte("x")}
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
				r.Offset = int64(len(w.recs))
				r.Headers = []topic.Header{{Key: topic.HeaderPosition, Value: []byte(topic.Position{Stage: "s", Partition: part, Seq: seq}.String())}}
				w.recs = append(w.recs, r)
			}
			continue
		}
		w.recs = append(w.recs, r)
	}
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
	for table, rows := range w.stored {
		for _, row := range rows {
			seen[key(table, row.offset)]++
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
	l := limits{rows: 4, bytes: 4, flush: 3 * time.Second, insert: 10 * time.Second, deadline: 20 * time.Second, grace: time.Hour}
	w := &world{t: t, now: time.Unix(1e9, 0), offset: -1, limits: l,
		tokens: map[string][]string{}, stored: map[string][]simRow{}}
	w.window = int((l.deadline+l.insert)/time.Second) + 15 // and what pauses and waits of one step add
	defer w.kill()                                         // a failed check leaves some behind
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
