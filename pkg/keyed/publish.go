package keyed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// drainChunk is how many entries of the outbox are read at once: a few megabytes at the most.
const drainChunk = 500

// effects publishes the outputs and brings the moves home, in memory where the slot held nothing else.
func (w *worker) effects(ctx context.Context, r commitResult) error {
	w.m.nextMov = r.firstMov + int64(len(w.dec.moves))
	if w.s.quiet {
		return nil
	}
	if r.firstSeq != r.pubSeq {
		return w.drain(ctx) // outputs of foreign moves stand in front
	}
	if err := w.publish(ctx, w.dec.outputs, r.firstSeq, w.in.at); err != nil {
		return err
	}
	if len(w.dec.outputs) > 0 {
		w.pub = r.firstSeq + int64(len(w.dec.outputs))
	}
	for i, m := range w.dec.moves {
		m.seq = r.firstMov + int64(i)
		if err := w.bringHome(ctx, m); err != nil {
			return err
		}
		w.mov = w.stuck.below(m.seq + 1)
	}
	return nil
}

// drain finishes what stands in the slot: it publishes the outbox, brings the moves home and trims both. Moves
// of a stuck origin stay, and what stands behind them too; they are met again, which changes nothing.
func (w *worker) drain(ctx context.Context) error {
	w.stuck.again()
	defer func() { w.s.metrics.stuck.WithLabelValues(w.label).Set(float64(len(w.stuck.origins))) }()
	for skip := 0; ; {
		m, outs, moves, err := w.slot.lists(ctx, skip, drainChunk)
		if err != nil {
			return err
		}
		if m.inc != w.slot.inc || m.marked {
			return errRefused // it was rebuilt, or is being rebuilt
		}
		if len(outs) == 0 && len(moves) == 0 {
			w.pub, w.mov = 0, 0
			w.stuck.pause()
			return nil
		}
		at, err := w.bodies(ctx, outs)
		if err != nil {
			return err
		}
		if err := w.publish(ctx, outs, m.pubSeq, at); err != nil {
			return err
		}
		for _, mv := range moves {
			if err := w.bringHome(ctx, mv); err != nil {
				return err
			}
		}
		met := m.movDone + int64(skip) + int64(len(moves))
		w.pub, w.mov = m.pubSeq+int64(len(outs)), w.stuck.below(met)
		if _, err := w.slot.commit(ctx, commitArgs{pub: w.pub, mov: w.mov, expect: trimOnly}); err != nil {
			return err
		}
		skip = int(met - w.mov)
	}
}

// publisher is the memory of publish, used again for each batch.
type publisher struct {
	topics  []publishTopic
	headers []topic.Header
	bytes   []byte
}

// publishTopic is what a batch publishes to one topic, by partition: records, and which outputs they are.
type publishTopic struct {
	name string
	recs [][]stream.Record
	outs [][]int
}

// insert puts a record behind those of earlier outputs.
func (t *publishTopic) insert(p, out int, rec stream.Record) {
	at, _ := slices.BinarySearch(t.outs[p], out)
	t.recs[p], t.outs[p] = slices.Insert(t.recs[p], at, rec), slices.Insert(t.outs[p], at, out)
}

func (p *publisher) reset() {
	for i := range p.topics {
		for j, recs := range p.topics[i].recs {
			clear(recs)
			p.topics[i].recs[j], p.topics[i].outs[j] = recs[:0], p.topics[i].outs[j][:0]
		}
	}
	clear(p.headers)
	p.headers, p.bytes = p.headers[:0], p.bytes[:0]
}

// to is where the records for a topic are gathered.
func (p *publisher) to(name string, partitions int) *publishTopic {
	for i := range p.topics {
		if p.topics[i].name == name {
			return &p.topics[i]
		}
	}
	p.topics = append(p.topics, publishTopic{name, make([][]stream.Record, partitions), make([][]int, partitions)})
	return &p.topics[len(p.topics)-1]
}

// add gathers output i, whose number is seq; in is the record that it passes through.
func (p *publisher) add(o *Output, in *Record, source string, i int, seq int64, partitions int) {
	from, at := len(p.headers), len(p.bytes)
	val := o.Value
	if o.PassThrough {
		val = in.Value
		for _, h := range in.Headers {
			if h.Key != topic.HeaderPosition && h.Key != topic.HeaderAt && !named(o.Headers, h.Key) {
				p.headers = append(p.headers, h)
			}
		}
		p.bytes = strconv.AppendInt(p.bytes, o.Offset, 10)
		p.headers = append(p.headers, topic.Header{Key: topic.HeaderAt, Value: p.bytes[at:len(p.bytes):len(p.bytes)]})
		at = len(p.bytes)
	}
	p.bytes = append(append(p.bytes, source...), ':')
	p.bytes = strconv.AppendInt(p.bytes, seq, 10)
	pos := p.bytes[at:len(p.bytes):len(p.bytes)]
	at = len(p.bytes)
	p.bytes = append(p.bytes, o.Key...)
	key := p.bytes[at:len(p.bytes):len(p.bytes)]
	p.headers = append(append(p.headers, o.Headers...), topic.Header{Key: topic.HeaderPosition, Value: pos})
	t, at := p.to(o.Topic, partitions), topic.Partition(key, partitions)
	t.recs[at] = append(t.recs[at], stream.Record{Key: key, Value: val, Headers: p.headers[from:len(p.headers):len(p.headers)]})
	t.outs[at] = append(t.outs[at], i)
}

func named(hs []topic.Header, key string) bool {
	for i := range hs {
		if hs[i].Key == key {
			return true
		}
	}
	return false
}

// publish sends outs, numbered from first, in order per target partition and side by side across them: a reader
// compares positions of one source and one partition only, so the order across partitions means nothing to it;
// what stands above is in the package's doc. It returns nil only when Kafka has all of them.
func (w *worker) publish(ctx context.Context, outs []Output, first int64, at func(offset int64) *Record) error {
	if len(outs) == 0 {
		return nil
	}
	w.pubs.reset()
	source := topic.Position{Stage: w.s.opt.Stage, Partition: w.claim.Partition}.Source()
	for i := range outs {
		o, seq := &outs[i], first+int64(i)
		var in *Record
		if o.PassThrough {
			if in = at(o.Offset); in == nil {
				return fmt.Errorf("output %d passes offset %d through, which is not at hand", seq, o.Offset)
			}
		}
		w.pubs.add(o, in, source, i, seq, w.s.opt.Topics.Partitions)
	}
	w.hold.wait(waitSend, time.Now())
	defer w.hold.wait(waitSend, time.Time{})
	refused, err := w.send(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errKafka, err)
	}
	w.reject(refused, outs, source, first)
	if err := w.sendRejected(ctx); err != nil {
		return fmt.Errorf("%w: %w", errKafka, err)
	}
	w.s.metrics.outputs.Add(float64(len(outs)))
	for i := range refused { // these the decider must not take for published
		if i == 0 {
			outs = slices.Clone(outs)
		}
		outs[refused[i].out].Topic = w.s.opt.Topics.EventsRejected()
	}
	return w.s.dec.published(ctx, w.slot, outs)
}

// send produces what was gathered, but for events.rejected: what is refused for its size goes there, in its order
// among the others. After an error, nothing later is sent by this owner before the whole outbox was read and sent
// anew, so that no gap can open.
func (w *worker) send(ctx context.Context) ([]refusal, error) {
	var mu sync.Mutex
	var refused []refusal
	err := w.sides(func(t *publishTopic) bool { return t.name != w.s.opt.Topics.EventsRejected() }, func(t *publishTopic, p int) error {
		list, err := w.produce(ctx, t, p)
		mu.Lock()
		defer mu.Unlock()
		refused = append(refused, list...)
		return err
	})
	return refused, err
}

// sendRejected produces what goes to events.rejected.
func (w *worker) sendRejected(ctx context.Context) error {
	return w.sides(func(t *publishTopic) bool { return t.name == w.s.opt.Topics.EventsRejected() }, func(t *publishTopic, p int) error {
		return w.produceRejected(ctx, t, p)
	})
}

// sides calls one for each partition of the topics that has records, side by side.
func (w *worker) sides(of func(*publishTopic) bool, one func(t *publishTopic, p int) error) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for i := range w.pubs.topics {
		t := &w.pubs.topics[i]
		if !of(t) {
			continue
		}
		for p := range t.recs {
			if len(t.recs[p]) == 0 {
				continue
			}
			wg.Go(func() {
				if err := one(t, p); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, err)
				}
			})
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// bodies reads the input records again that outputs found in the slot pass through.
func (w *worker) bodies(ctx context.Context, outs []Output) (func(offset int64) *Record, error) {
	want := map[int64]*Record{}
	var lo, hi int64 = -1, -1
	for i := range outs {
		if o := &outs[i]; o.PassThrough {
			want[o.Offset] = nil
			if lo < 0 || o.Offset < lo {
				lo = o.Offset
			}
			hi = max(hi, o.Offset)
		}
	}
	at := func(offset int64) *Record { return want[offset] }
	if lo < 0 {
		return at, nil
	}
	f := w.s.deps.Stream.NewFetcher(w.s.opt.Input, w.claim.Partition, lo, stream.FetchOptions{})
	defer f.Close()
	for next := lo; next <= hi; {
		b, err := f.Fetch(ctx, fetchWait)
		if err != nil {
			return nil, fmt.Errorf("fetch bodies from %d: %w: %w", next, errKafka, err)
		}
		for i := range b.Records {
			if _, ok := want[b.Records[i].Offset]; ok {
				sr := stream.Clone(b.Records[i : i+1])[0] // kept beyond the next Fetch
				r, err := parseRecord(sr)
				if err != nil {
					return nil, fmt.Errorf("offset %d: %w", sr.Offset, err)
				}
				want[sr.Offset] = &r
			}
		}
		if b.Next == next && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		next = b.Next
	}
	return at, nil
}
