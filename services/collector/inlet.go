package collector

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	inlets "github.com/weft-cdp/weft/pkg/inlet"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

const (
	// fetchWait is how long a fetch waits for records.
	fetchWait = 500 * time.Millisecond
	// recommitAfter is how often an unchanged position is committed again: Kafka forgets the commits of a group
	// that is idle, and the fence waits for them.
	recommitAfter = 30 * time.Second
)

// recordReader makes events of records; *inlets.Reader is one. Its error is of inlets.ErrHeld, or an *event.Error.
type recordReader interface {
	Read(ctx context.Context, rec inlets.Record) (inlets.Event, error)
}

// inlet reads one topic of foreign records. Per partition: fetch, make events, produce, commit, in that order;
// nothing is produced past a failed request, so that positions leave no gap (architecture section 4, rule 1).
type inlet struct {
	source  *source
	topic   string
	group   string
	reader  recordReader
	letter  string // what becomes of records that cannot be events
	set     topic.Set
	client  *stream.Client
	intake  *intake
	metrics *metrics
	log     *zap.Logger
	rarely  *zap.Logger // log, but rarely

	mu     sync.Mutex
	behind map[int]bool // owned partitions; true until the end was reached once
	held   map[int]hold // those whose next record cannot be read now
	down   error        // why it has stopped for good; nil while it runs
}

// newInlets makes the shipped inbox and the configured inlets; the error names every faulty mapping.
func newInlets(cfg config.Config, deps Deps, in *intake, m *metrics) ([]*inlet, error) {
	set := cfg.Topics.Set()
	inbox := config.Source{Name: config.InboxSource, Kind: config.KindKafka, Trusted: true, Kafka: config.KafkaInlet{Topic: set.EventsInbox()}}
	all := append([]config.Source{inbox}, cfg.Collector.KafkaSources()...)
	list := make([]*inlet, 0, len(all))
	var errs []error
	for _, c := range all {
		src, err := newSource(in, c)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		x := &inlet{
			source: src, topic: c.Kafka.Topic, group: set.Group(topic.StageCollector, c.Kafka.Topic),
			set: set, client: deps.Stream, intake: in, metrics: m,
			log:    deps.Log.With(zap.String("inlet", c.Name), zap.String("topic", c.Kafka.Topic)),
			letter: c.Kafka.DeadLetter, behind: map[int]bool{}, held: map[int]hold{},
		}
		x.rarely = rarely(x.log)
		r, err := inlets.New(c.Kafka, nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("source %s: %w", c.Name, err))
		}
		x.reader = r
		in.know(src, r)
		m.down.WithLabelValues(c.Name).Set(0)
		m.held.WithLabelValues(c.Name).Set(0)
		list = append(list, x)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return list, nil
}

// run reads the partitions that the group gives this process until ctx ends. A missing topic is waited for. What
// ends one inlet, such as records lost to retention, is told here and by ready, and is no reason to close the
// HTTP door or the other inlets.
func (in *inlet) run(ctx context.Context) {
	err := in.client.RunGroup(ctx, stream.GroupOptions{Group: in.group, Topics: []string{in.topic}}, in.own)
	if err == nil || ctx.Err() != nil {
		return
	}
	in.stopped(err)
	in.metrics.down.WithLabelValues(in.source.name).Set(1)
	in.log.Error("inlet is down until the collector is restarted", zap.Error(err))
}

// stopped notes why the inlet is down.
func (in *inlet) stopped(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.down = err
}

func (in *inlet) ready() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.down != nil {
		return fmt.Errorf("inlet %s is down: %w", in.source.name, in.down)
	}
	for p, h := range in.held {
		if in.intake.now().Sub(h.since) > inlets.HeldFor() {
			return fmt.Errorf("inlet %s: partition %d of %s is held since %s: %w", in.source.name, p, in.topic, h.since.UTC().Format(time.RFC3339), h.why)
		}
	}
	for p, behind := range in.behind {
		if behind {
			return fmt.Errorf("inlet %s: partition %d of %s has not been read to its end yet", in.source.name, p, in.topic)
		}
	}
	return nil
}

func (in *inlet) note(partition int, behind bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.behind[partition] = behind
}

func (in *inlet) forget(partition int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.behind, partition)
	delete(in.held, partition)
	in.metrics.held.WithLabelValues(in.source.name).Set(float64(len(in.held)))
	in.metrics.lag.DeleteLabelValues(in.topic, strconv.Itoa(partition))
}

// own is the owner of one partition until it is revoked.
func (in *inlet) own(ctx context.Context, cl *stream.Claim) error {
	in.note(cl.Partition, true)
	defer in.forget(cl.Partition)
	from := cl.Offset
	if from < 0 {
		starts, err := in.client.StartOffsets(ctx, in.topic)
		if err != nil {
			return ended(ctx, err)
		}
		from = starts[cl.Partition]
	}
	f := in.client.NewFetcher(in.topic, cl.Partition, from, stream.FetchOptions{})
	defer f.Close()
	lag := in.metrics.lag.WithLabelValues(in.topic, strconv.Itoa(cl.Partition))
	c := committer{claim: cl, log: in.log}
	if err := c.commit(ctx, from); err != nil {
		return ended(ctx, err)
	}
	for ctx.Err() == nil {
		batch, err := f.Fetch(ctx, fetchWait)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, stream.ErrOffsetOutOfRange):
			err = fmt.Errorf("read %s partition %d: records were deleted before they were read (retention); "+
				"set the offsets of group %s to where reading should go on: %w: %w", in.topic, cl.Partition, in.group, stream.ErrStop, err)
			in.stopped(err) // before forget, so that it does not look ready while the group is left
			return err
		case err != nil:
			return err
		}
		if err := in.pass(ctx, batch.Records); err != nil {
			return ended(ctx, err)
		}
		if err := c.commit(ctx, batch.Next); err != nil {
			return ended(ctx, err)
		}
		lag.Set(float64(batch.HighWatermark - batch.Next))
		if batch.Next >= batch.HighWatermark {
			in.note(cl.Partition, false)
		}
	}
	return nil
}

// ended is nil if err is only the end of ctx.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(err, stream.ErrStop) {
		return nil
	}
	return err
}

// committer commits positions when they have moved, when the last outcome is unknown, and now and then.
type committer struct {
	claim *stream.Claim
	log   *zap.Logger
	done  int64 // last known to be committed; valid if at is not zero
	at    time.Time
}

func (c *committer) commit(ctx context.Context, offset int64) error {
	if !c.at.IsZero() && offset == c.done && time.Since(c.at) < recommitAfter {
		return nil
	}
	err := c.claim.Commit(ctx, offset, "")
	switch {
	case err == nil:
		c.done, c.at = offset, time.Now()
	case errors.Is(err, stream.ErrFenced), errors.Is(err, stream.ErrPermanent), ctx.Err() != nil:
		return err
	default: // unknown: the next round commits again
		c.at = time.Time{}
		c.log.Warn("commit not confirmed, will be repeated", zap.Int("partition", c.claim.Partition), zap.Error(err))
	}
	return nil
}

// pass produces the events of recs and returns nil when Kafka has all of them that are to be kept. events.collected comes first, its
// partitions side by side; then events.rejected, when it is known what the broker refuses: the positions of one
// source must grow in each of its partitions, else the smaller one is dropped as a repeat.
func (in *inlet) pass(ctx context.Context, recs []stream.Record) error {
	made := make([]record, len(recs))
	for i := range recs {
		var err error
		if made[i], err = in.make(ctx, &recs[i]); err != nil {
			return err
		}
	}
	err := in.each(made, false, func(partition int, list []int) error {
		return in.collect(ctx, partition, recs, made, list)
	})
	if err != nil {
		return err
	}
	err = in.each(made, true, func(partition int, list []int) error {
		return in.reject(ctx, partition, recs, made, list)
	})
	if err != nil {
		return err
	}
	for i := range made {
		if made[i].left != "" {
			in.intake.acknowledged(&made[i])
		}
	}
	return nil
}

// each calls f side by side for the partitions that the collected, or else the rejected, ones of made are for.
// list holds their indexes, growing.
func (in *inlet) each(made []record, rejected bool, f func(partition int, list []int) error) error {
	lists := map[int][]int{}
	for i := range made {
		if (made[i].reason != "") == rejected && made[i].left == "" {
			p := topic.Partition(made[i].Key, in.set.Partitions)
			lists[p] = append(lists[p], i)
		}
	}
	errs := make(chan error, len(lists))
	for p, list := range lists {
		go func() { errs <- f(p, list) }()
	}
	var err error
	for range lists {
		err = errors.Join(err, <-errs)
	}
	return err
}

// collect sends those of made that list names to a partition of events.collected. What the broker itself refuses
// becomes a rejected record in its place, for reject to send.
func (in *inlet) collect(ctx context.Context, partition int, recs []stream.Record, made []record, list []int) error {
	for len(list) > 0 {
		done, refused, err := in.produce(ctx, in.set.EventsCollected(), partition, made, list)
		if err != nil {
			return err
		}
		if list = list[done:]; refused != nil {
			made[list[0]] = in.refused(&recs[list[0]], &made[list[0]], refused)
			list = list[1:]
		}
	}
	return nil
}

// reject sends those of made that list names to a partition of events.rejected. What the broker refuses goes
// shortened, in its turn.
func (in *inlet) reject(ctx context.Context, partition int, recs []stream.Record, made []record, list []int) error {
	for len(list) > 0 {
		done, refused, err := in.produce(ctx, in.set.EventsRejected(), partition, made, list)
		if err != nil {
			return err
		}
		if list = list[done:]; refused != nil {
			r := &made[list[0]]
			if len(r.Value) <= maxKeptBytes {
				return refused // cannot be made smaller
			}
			*r = in.refused(&recs[list[0]], r, refused)
		}
	}
	return nil
}

// produce sends those of made that list names to one partition. It returns how many of them Kafka has, and why it
// refuses the next one; nil and all of them if it refuses none.
func (in *inlet) produce(ctx context.Context, name string, partition int, made []record, list []int) (int, *stream.RecordError, error) {
	out := make([]stream.Record, len(list))
	for i, at := range list {
		out[i] = made[at].Record
	}
	done := len(list)
	err := in.client.Produce(ctx, name, partition, out)
	refused := (*stream.RecordError)(nil)
	if err != nil {
		if !errors.As(err, &refused) || refused.Index >= len(list) {
			return 0, nil, err
		}
		done = refused.Index
	}
	for _, at := range list[:done] {
		in.intake.acknowledged(&made[at])
	}
	return done, refused, nil
}

// refused is the record of events.rejected for one that the broker refused: the first bytes as they came.
func (in *inlet) refused(rec *stream.Record, r *record, refused *stream.RecordError) record {
	why := &event.Error{Reason: reasonRefused, Detail: refused.Error()}
	rejected := in.intake.reject(rec.Value[:min(len(rec.Value), maxKeptBytes)], r.meta, r.Key, why, in.origin(rec), place{})
	rejected.Headers = append(rejected.Headers, in.position(rec))
	return rejected
}

// origin names a foreign record: its topic, partition and offset.
func (in *inlet) origin(rec *stream.Record) string {
	return in.topic + ":" + strconv.Itoa(rec.Partition) + ":" + strconv.FormatInt(rec.Offset, 10)
}

// position is the header with the source position of a foreign record.
func (in *inlet) position(rec *stream.Record) topic.Header {
	position := topic.Position{Stage: topic.StageCollector + "/" + in.topic, Partition: rec.Partition, Seq: rec.Offset}
	return topic.Header{Key: topic.HeaderPosition, Value: []byte(position.String())}
}
