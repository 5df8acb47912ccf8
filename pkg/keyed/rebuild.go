package keyed

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

//go:embed rebuild.lua
var rebuildSource string

// ErrRunning means that the stage has members in its group: they must be stopped before it is rebuilt.
var ErrRunning = errors.New("the stage is running")

// RebuildOptions say from what a stage is rebuilt.
type RebuildOptions struct {
	Past Past
	// From is the deployment whose history is folded: the stage's own, or one with another prefix, whose
	// partition count may be another too.
	From topic.Set
	// Ends are where the input of From ends for this rebuild, by partition.
	Ends []int64
	// Seen are sequences that readers of the stage's outputs have noted: what they must see as new lies above.
	Seen []topic.Position
	// Progress, if set, is told now and then how many records of how many are folded.
	Progress func(done, total int64)
}

// RebuildReport is what a rebuild did.
type RebuildReport struct {
	Records int64 // of the input, folded
	Untold  int64 // outputs that were never published, and will be when the stage starts
}

// rebuild is one run of Rebuild.
type rebuild struct {
	s       *Stage
	opt     RebuildOptions
	foreign bool // From is another deployment
	script  *store.Script
	inc     string
	workers []*worker // by partition of the stage
	heads   []*head   // by partition of From
	next    []int64   // by partition of the stage: the first sequence
	done    int64
	now     time.Time
}

// Rebuild empties the stage's slots and folds history again. It publishes and commits nothing: what was never
// published stands in the outboxes when it returns. If it fails or dies, no process of the stage starts until
// it was run again, from its beginning.
func (s *Stage) Rebuild(ctx context.Context, opt RebuildOptions) (RebuildReport, error) {
	opt.Ends = slices.Clone(opt.Ends)
	b := &rebuild{
		s: s, opt: opt, foreign: opt.From.Prefix != s.opt.Topics.Prefix, script: store.NewScript(rebuildSource),
		next: make([]int64, s.opt.Topics.Partitions),
	}
	for _, p := range opt.Seen {
		b.note(p)
	}
	s.quiet, s.deps.Now = true, func() time.Time { return b.now }
	report, err := b.run(ctx)
	if err != nil {
		return report, fmt.Errorf("rebuild %s: %w", s.opt.Stage, err)
	}
	return report, nil
}

func (b *rebuild) run(ctx context.Context) (RebuildReport, error) {
	var report RebuildReport
	if err := b.s.checkDeployment(ctx); err != nil {
		return report, err
	}
	if err := b.idle(ctx); err != nil {
		return report, err
	}
	if err := b.begin(ctx); err != nil {
		return report, err
	}
	if err := b.recallRejects(ctx); err != nil {
		return report, err
	}
	if err := b.s.dec.recall(ctx, b.read); err != nil {
		return report, err
	}
	if !b.foreign {
		for p := range b.opt.Ends {
			b.opt.Ends[p] = b.s.dec.until(p, b.opt.Ends[p])
		}
	}
	if err := b.fold(ctx); err != nil {
		return report, err
	}
	for _, w := range b.workers {
		if err := b.s.dec.conclude(ctx, b, w); err != nil {
			return report, err
		}
	}
	report.Records = b.done
	for _, w := range b.workers {
		n, err := b.end(ctx, w)
		if err != nil {
			return report, err
		}
		report.Untold += n
	}
	return report, nil
}

// idle makes sure that nobody works on the stage.
func (b *rebuild) idle(ctx context.Context) error {
	group := b.s.opt.Topics.Group(b.s.opt.Stage, b.s.opt.Input)
	n, err := b.s.deps.Stream.GroupMembers(ctx, group)
	if err != nil {
		return err
	}
	if n > 0 {
		return fmt.Errorf("%w: group %s has %d members. Stop every process of it; one that was killed leaves the group after its session time-out", ErrRunning, group, n)
	}
	return nil
}

// begin takes the slots and empties them.
func (b *rebuild) begin(ctx context.Context) error {
	id := make([]byte, revLen)
	_, _ = rand.Read(id) // crypto/rand.Read never fails
	b.inc = hex.EncodeToString(id)
	keep := map[string]bool{}
	told, err := b.s.deps.Stream.Committed(ctx, b.s.opt.Topics.Group(b.s.opt.Stage, b.s.opt.Input), b.s.opt.Input)
	if err != nil {
		return err
	}
	for p := range b.s.opt.Topics.Partitions {
		w := newWorker(b.s, &stream.Claim{Topic: b.s.opt.Input, Partition: p, Offset: -1})
		b.workers = append(b.workers, w)
		if err := b.known(ctx, w); err != nil {
			return err
		}
	}
	for p, w := range b.workers {
		if _, err := b.call(ctx, w, "begin", toldWrites(told[p].Metadata)); err != nil {
			return err
		}
		w.slot.inc = b.inc
		keep[w.slot.metaKey()] = true
	}
	// Whoever joined before the marks were there would have been told by a script's refusal; nobody must have.
	if err := b.idle(ctx); err != nil {
		return err
	}
	for _, w := range b.workers {
		if err := b.empty(ctx, w, keep); err != nil {
			return err
		}
		if err := b.reload(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// known makes sure that a slot is not of a newer version. One that can not be read is of no use, and no obstacle.
func (b *rebuild) known(ctx context.Context, w *worker) error {
	return retry(ctx, b.s.deps.Log, "rebuild is held", func() error {
		if _, _, err := w.slot.load(ctx); err != nil && !errors.Is(err, errCorrupt) {
			return err
		}
		return nil
	})
}

// empty deletes what a slot held, but for what a planner says is not of the stage's own making.
func (b *rebuild) empty(ctx context.Context, w *worker, keep map[string]bool) error {
	return b.scan(ctx, w.slot.tag, func(keys []string) error {
		p := b.s.deps.Store.Pipe()
		n := 0
		for _, k := range keys {
			if !keep[k] && b.s.dec.owns(strings.TrimPrefix(k, w.slot.tag)) {
				p.Do(ctx, "UNLINK", k)
				n++
			}
		}
		if n == 0 {
			return nil
		}
		return p.Exec(ctx)
	})
}

// scan calls see with the keys that begin with prefix.
func (b *rebuild) scan(ctx context.Context, prefix string, see func(keys []string) error) error {
	return b.s.deps.Store.Scan(ctx, store.Glob(prefix)+"*", see)
}

// reload reads a slot's bookkeeping as it stands.
func (b *rebuild) reload(ctx context.Context, w *worker) error {
	m, pos, err := w.slot.load(ctx)
	if err != nil {
		return err
	}
	if m.inc != b.inc {
		return fmt.Errorf("slot %s was taken by another rebuild, or redis has lost writes again: %w", w.slot.tag, ErrStateLost)
	}
	w.m, w.sources.last, w.loaded, w.highest, w.writes = m, pos, true, m.applied, m.writes
	return nil
}

// end makes a slot whole, and says how many outputs it holds.
func (b *rebuild) end(ctx context.Context, w *worker) (int64, error) {
	p := w.slot.partition
	var applied int64
	if b.foreign { // the new topic's records are still to come
		starts, err := b.s.deps.Stream.StartOffsets(ctx, b.s.opt.Input)
		if err != nil {
			return 0, err
		}
		applied = starts[p]
	} else {
		applied = b.opt.Ends[p]
	}
	r, err := b.call(ctx, w, "end", applied, b.next[p])
	if err != nil {
		return 0, err
	}
	if r == 0 {
		return 0, b.reload(ctx, w)
	}
	m, _, err := w.slot.load(ctx)
	return m.nextSeq - m.pubSeq, err
}

func (b *rebuild) call(ctx context.Context, w *worker, step string, args ...any) (int64, error) {
	keys := []string{w.slot.metaKey(), w.slot.outboxKey(), w.slot.movesKey(), w.slot.timersKey(), w.slot.posKey()}
	var answer int64
	err := retry(ctx, b.s.deps.Log, "rebuild is held", func() error {
		r, err := b.script.Run(ctx, b.s.deps.Store, keys, append([]any{step, b.inc}, args...)...)
		if err != nil {
			return fmt.Errorf("%s rebuild of slot %s: %w", step, w.slot.tag, err)
		}
		answer = r.Int()
		return nil
	})
	return answer, err
}

// settled writes what guards itself by revisions: a refusal means that an earlier copy was accepted.
func (b *rebuild) settled(ctx context.Context, w *worker, args commitArgs) error {
	return retry(ctx, b.s.deps.Log, "rebuild is held", func() error {
		r, err := w.slot.commit(ctx, args)
		if err != nil {
			return err
		}
		if r.reason == refusedIncarnation {
			return b.reload(ctx, w)
		}
		return nil
	})
}

// recallRejects reads which records this stage has rejected, so that it does not do so again.
func (b *rebuild) recallRejects(ctx context.Context) error {
	told := map[string]bool{}
	for p := range b.opt.From.Partitions {
		_, err := b.read(ctx, b.opt.From.EventsRejected(), p, func(r Record) error {
			if by, _ := topic.Get(r.Headers, topic.HeaderService); by == b.s.opt.Stage {
				from, _ := topic.Get(r.Headers, topic.HeaderOrigin)
				told[from] = true
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	commits, err := b.s.deps.Stream.Committed(ctx, b.opt.From.Group(b.s.opt.Stage, b.input()), b.input())
	if err != nil {
		return err
	}
	b.s.mute = func(outs []Output) []Output {
		return slices.DeleteFunc(outs, func(o Output) bool {
			if o.Topic != b.s.opt.Topics.EventsRejected() {
				return false
			}
			from, _ := topic.Get(o.Headers, topic.HeaderOrigin)
			return b.foreign || told[from] || committed(from, commits)
		})
	}
	return nil
}

// committed says whether the record named by an origin lies before its group's commit: all that came of it was
// published then.
func committed(origin string, commits []stream.Committed) bool {
	p, err := topic.ParsePosition(origin) // of the same form: topic:partition:offset
	return err == nil && p.Partition < len(commits) && p.Seq < commits[p.Partition].Offset
}

// input is the topic whose history is folded.
func (b *rebuild) input() string {
	return b.opt.From.Prefix + strings.TrimPrefix(b.s.opt.Input, b.s.opt.Topics.Prefix)
}

// muted leaves out what was published before, during a rebuild.
func (s *Stage) muted(outs []Output) []Output {
	if s.mute == nil {
		return outs
	}
	return s.mute(outs)
}

// progressEvery is how many records lie between two words to Progress.
const progressEvery = 10_000

func (b *rebuild) progress(n int, total int64) {
	before := b.done
	b.done += int64(n)
	if b.opt.Progress != nil && before/progressEvery != b.done/progressEvery {
		b.opt.Progress(b.done, total)
	}
}

// receivedAt is when a record was received; zero: it does not say.
func receivedAt(r *stream.Record) time.Time {
	text, _ := topic.Get(r.Headers, topic.HeaderReceivedAt)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}
