package keyed

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/topic"
)

//go:embed commit.lua
var commitSource string

// Slot is the Redis hash slot of one partition of one stage.
type Slot struct {
	st        *store.Client
	tag       string
	partition int
	script    *store.Script
	inc       string // incarnation that its owner has read; every script names it
}

func newSlot(st *store.Client, t topic.Set, stage string, partition int, script *store.Script) Slot {
	return Slot{st: st, tag: slotTag(t, stage, partition), partition: partition, script: script}
}

// SlotTag is the hash tag of a slot, braces included.
func SlotTag(t topic.Set, stage string, partition int) string { return slotTag(t, stage, partition) }

func slotTag(t topic.Set, stage string, partition int) string {
	return "{" + t.Prefix + stage + ":" + strconv.Itoa(partition) + "}"
}

// Tag is the hash tag, braces included, that keys of a planner's own in this slot begin with.
func (s Slot) Tag() string { return s.tag }

// Partition is the partition of the input that the slot belongs to.
func (s Slot) Partition() int { return s.partition }

func (s Slot) stateKey(key string) string { return s.tag + "s:" + key }

func (s Slot) metaKey() string   { return s.tag + "meta" }
func (s Slot) outboxKey() string { return s.tag + "outbox" }
func (s Slot) movesKey() string  { return s.tag + "moves" }
func (s Slot) timersKey() string { return s.tag + "timers" }
func (s Slot) posKey() string    { return s.tag + "positions" }

// seenKey is the set of ids seen in a UTC day.
func (s Slot) seenKey(day time.Time) string { return s.tag + "seen:" + day.UTC().Format("20060102") }

// clockSlack is by how much the clock of whoever noted an id may have been ahead of the one that looks: another
// owner's, or the same before it was put right. Close to a day's end the id then lies in the set of the next day. Clocks
// that are further apart are broken; one more set is looked at in the last hour of a day only.
const clockSlack = time.Hour

// seenDays are the days whose sets may hold an id seen within window before at.
func seenDays(at time.Time, window time.Duration) []time.Time {
	const day = 24 * time.Hour
	var days []time.Time
	for d := at.Add(-window).Truncate(day); !d.After(at.Add(clockSlack)); d = d.Add(day) {
		days = append(days, d)
	}
	return days
}

// Seen says which of ids an accepted Change has noted within window before at. One round trip.
func (s Slot) Seen(ctx context.Context, ids [][]byte, at time.Time, window time.Duration) ([]bool, error) {
	seen := make([]bool, len(ids))
	if len(ids) == 0 {
		return seen, nil
	}
	p := s.st.Pipe()
	var replies []*store.Reply
	for _, day := range seenDays(at, window) {
		args := make([]any, 0, len(ids)+2)
		args = append(args, "SMISMEMBER", s.seenKey(day))
		for _, id := range ids {
			args = append(args, id)
		}
		replies = append(replies, p.Do(ctx, args...))
	}
	if err := p.Exec(ctx); err != nil {
		return nil, fmt.Errorf("look up %d seen ids: %w", len(ids), err)
	}
	for _, r := range replies {
		for i, v := range r.Slice() {
			if v.Int() == 1 {
				seen[i] = true
			}
		}
	}
	return seen, nil
}

// meta is the slot's bookkeeping.
type meta struct {
	fresh   bool // nothing was ever written
	applied int64
	nextSeq int64 // sequence of the next output
	pubSeq  int64 // outputs below are published
	nextMov int64
	movDone int64  // moves below are done
	inc     string // incarnation: "" until the slot is rebuilt for the first time
	marked  bool   // a rebuild has begun and not ended
	writes  int64  // scripts accepted, of whatever kind; 0 too where a binary of before the count was the last
}

var metaFields = []any{"applied", "nextseq", "pubseq", "nextmov", "movdone", "v", "inc", "rebuild", "writes"}

// slotVersion is the version of the slot's layout. A slot under rebuild says rebuildVersion, so that a binary
// that does not know the mark stays away from it too.
const (
	slotVersion    = 1
	rebuildVersion = 2
)

func parseMeta(vs []store.Value) (meta, error) {
	var m meta
	if len(vs) != len(metaFields) {
		return m, fmt.Errorf("slot meta has %d fields: %w", len(vs), errCorrupt)
	}
	_, marked := vs[7].Text()
	if v := vs[5].Int(); v > slotVersion && (!marked || v != rebuildVersion) {
		return m, fmt.Errorf("%w: slot version %d, known %d", ErrNewerState, v, slotVersion)
	}
	_, has := vs[0].Text()
	m = meta{
		fresh: !has, applied: vs[0].Int(), nextSeq: vs[1].Int(), pubSeq: vs[2].Int(),
		nextMov: vs[3].Int(), movDone: vs[4].Int(), marked: marked, writes: vs[8].Int(),
	}
	m.inc, _ = vs[6].Text()
	return m, nil
}

func (s Slot) askMeta(ctx context.Context, p *store.Pipe) *store.Reply {
	return p.Do(ctx, append([]any{"HMGET", s.metaKey()}, metaFields...)...)
}

// meta reads the bookkeeping.
func (s Slot) meta(ctx context.Context) (meta, error) {
	p := s.st.Pipe()
	r := s.askMeta(ctx, p)
	if err := p.Exec(ctx); err != nil {
		return meta{}, fmt.Errorf("read slot %s: %w", s.tag, err)
	}
	m, err := parseMeta(r.Slice())
	if err != nil {
		return m, fmt.Errorf("read slot %s: %w", s.tag, err)
	}
	return m, nil
}

// load reads the bookkeeping and the highest source positions.
func (s Slot) load(ctx context.Context) (meta, map[string]int64, error) {
	p := s.st.Pipe()
	mr := s.askMeta(ctx, p)
	pr := p.Do(ctx, "HGETALL", s.posKey())
	if err := p.Exec(ctx); err != nil {
		return meta{}, nil, fmt.Errorf("read slot %s: %w", s.tag, err)
	}
	m, err := parseMeta(mr.Slice())
	if err != nil {
		return meta{}, nil, fmt.Errorf("read slot %s: %w", s.tag, err)
	}
	pos := map[string]int64{}
	vs := pr.Slice()
	for i := 0; i+1 < len(vs); i += 2 {
		if k, ok := vs[i].Text(); ok {
			pos[k] = vs[i+1].Int()
		}
	}
	return m, pos, nil
}

// stateWrite is one state to store, if it still has the revision that was read.
type stateWrite struct {
	key     string
	full    string // the key in Redis; "": to be made of key
	old     string // revision as read, "" for absent
	val     []byte
	due     time.Time // zero: no timer
	sameDue bool      // the timers' index is right as it is
}

// score is what the script does to the timers' index.
func (w *stateWrite) score() string {
	switch {
	case w.sameDue:
		return "="
	case w.due.IsZero():
		return ""
	default:
		return strconv.FormatInt(w.due.UnixMilli(), 10)
	}
}

// trimOnly as the expected offset is never met: the script trims and does nothing else.
const trimOnly = "trim"

// commitArgs is one call of the script.
type commitArgs struct {
	expect   string // applied offset as read, "none" for a fresh slot, "" not compared
	applied  string // "" unchanged
	vouch    []byte // empty: unchanged
	pub, mov int64  // trim below; 0 nothing
	states   []stateWrite
	outputs  [][]byte
	moves    [][]byte
	pos      map[string]int64
	seenIDs  [][]byte
	seenAt   time.Time
	seenFor  time.Duration
}

type commitResult struct {
	ok       bool
	reason   string // refused: refusedApplied, refusedRevision or refusedIncarnation
	firstSeq int64  // of these outputs
	firstMov int64
	pubSeq   int64
	writes   int64
}

// Why a script was refused.
const (
	refusedApplied     = "applied"
	refusedRevision    = "revision"
	refusedIncarnation = "incarnation"
)

func (s Slot) commit(ctx context.Context, a commitArgs) (commitResult, error) {
	keys := make([]string, 0, 6+len(a.states))
	keys = append(keys, s.metaKey(), s.outboxKey(), s.movesKey(), s.timersKey(), s.posKey())
	args := make([]any, 0, 14+4*len(a.states)+len(a.outputs)+len(a.moves)+2*len(a.pos)+len(a.seenIDs))
	trim := func(n int64) any {
		if n <= 0 {
			return ""
		}
		return n
	}
	var vouch any = ""
	if len(a.vouch) > 0 {
		vouch = a.vouch
	}
	args = append(args, s.inc, a.expect, a.applied, vouch, trim(a.pub), trim(a.mov), len(a.states))
	for _, w := range a.states {
		full := w.full
		if full == "" {
			full = s.stateKey(w.key)
		}
		keys = append(keys, full)
		args = append(args, w.old, w.val, w.score(), w.key)
	}
	args = append(args, len(a.outputs))
	for _, o := range a.outputs {
		args = append(args, o)
	}
	args = append(args, len(a.moves))
	for _, m := range a.moves {
		args = append(args, m)
	}
	args = append(args, len(a.pos))
	for k, v := range a.pos {
		args = append(args, k, v)
	}
	if len(a.seenIDs) > 0 {
		const slack = 24 * time.Hour // the set of a day holds ids until the day's end
		keys = append(keys, s.seenKey(a.seenAt))
		args = append(args, 1, (a.seenFor + slack + slack).Milliseconds(), len(a.seenIDs))
		for _, id := range a.seenIDs {
			args = append(args, id)
		}
	} else {
		args = append(args, 0)
	}
	r, err := s.script.Run(ctx, s.st, keys, args...)
	if err != nil {
		return commitResult{}, fmt.Errorf("write slot %s: %w", s.tag, err)
	}
	vs := r.Slice()
	if len(vs) != 5 {
		return commitResult{}, fmt.Errorf("write slot %s: answer of %d values: %w", s.tag, len(vs), errCorrupt)
	}
	status, _ := vs[0].Text()
	return commitResult{
		ok: status == "ok", reason: status, firstSeq: vs[1].Int(), firstMov: vs[2].Int(), pubSeq: vs[3].Int(), writes: vs[4].Int(),
	}, nil
}

// lists reads up to limit entries of the outbox, from its head, and of the moves, from the skip-th on. Meta is
// asked for on both sides: another owner may trim between two commands, and then the numbers would be wrong.
func (s Slot) lists(ctx context.Context, skip, limit int) (meta, []Output, []*move, error) {
	for {
		p := s.st.Pipe()
		first := s.askMeta(ctx, p)
		or := p.Do(ctx, "LRANGE", s.outboxKey(), 0, limit-1)
		vr := p.Do(ctx, "LRANGE", s.movesKey(), skip, skip+limit-1)
		last := s.askMeta(ctx, p)
		if err := p.Exec(ctx); err != nil {
			return meta{}, nil, nil, fmt.Errorf("read outbox of %s: %w", s.tag, err)
		}
		m, err := parseMeta(first.Slice())
		if err != nil {
			return m, nil, nil, fmt.Errorf("read slot %s: %w", s.tag, err)
		}
		again, err := parseMeta(last.Slice())
		if err != nil {
			return m, nil, nil, fmt.Errorf("read slot %s: %w", s.tag, err)
		}
		if again.pubSeq != m.pubSeq || again.movDone != m.movDone {
			continue
		}
		outs, moves, err := m.entries(or.Slice(), vr.Slice(), skip)
		if err != nil {
			return m, nil, nil, fmt.Errorf("read outbox of %s: %w", s.tag, err)
		}
		return m, outs, moves, nil
	}
}

// entries decodes what lists read.
func (m meta) entries(outbox, moved []store.Value, skip int) ([]Output, []*move, error) {
	outs, moves := make([]Output, len(outbox)), make([]*move, len(moved))
	for i, v := range outbox {
		o, err := decodeOutput(v.Bytes())
		if err != nil {
			return nil, nil, err
		}
		outs[i] = o
	}
	for i, v := range moved {
		mv, err := decodeMove(v.Bytes())
		if err != nil {
			return nil, nil, err
		}
		mv.seq = m.movDone + int64(skip) + int64(i)
		moves[i] = mv
	}
	return outs, moves, nil
}
