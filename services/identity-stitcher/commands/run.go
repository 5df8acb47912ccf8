package commands

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/spool/registry"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/undo"
)

// Numbers of a command's records: each has its own, the same whenever it is published, and they only grow towards each topic
// and partition, since readers drop what is not above the highest that they have seen.
const (
	indexBits  = 20
	FirstIndex = 1 << 14          // below it lie the merges that stand before a split, by the place of the loser among the members
	lastIndex  = 1<<indexBits - 1 // how it ended
)

// producedAtOnce is how many records go to Kafka together: one or two megabytes of events.
const producedAtOnce = 500

// Run is one command being carried out.
type Run struct {
	Command   identity.Command
	Partition int
	Offset    int64

	x      *Executor
	status undo.Status
}

// begin reads what is known of the command, and notes that it is being carried out.
func (r *Run) begin(ctx context.Context) (undo.Status, error) {
	known, ok, err := r.x.ledger.Get(ctx, r.Command.ID)
	if err != nil {
		return known, err
	}
	if ok && (known.State.Ended() || known.Offset >= 0 && known.Offset != r.Offset) {
		return known, nil
	}
	now := r.x.deps.Now().UTC()
	c := &r.Command
	r.status = undo.Status{ID: c.ID, Kind: c.Kind, Actor: c.Actor, Reason: c.Reason, At: c.At, Offset: r.Offset, State: undo.Running,
		Step: known.Step, Since: known.Since, Began: known.Began, Counts: map[string]int{}}
	if r.status.Began == nil {
		r.status.Began, r.status.Since = &now, &now
	}
	return r.status, r.x.ledger.Put(ctx, &r.status)
}

// Step says what the command is at.
func (r *Run) Step(ctx context.Context, what string) error {
	now := r.x.deps.Now().UTC()
	r.status.Step, r.status.Since, r.status.Error = what, &now, ""
	r.x.deps.Log.Info("command", zap.String("command", r.Command.ID), zap.String("kind", string(r.Command.Kind)), zap.String("step", what))
	return r.x.ledger.Put(ctx, &r.status)
}

// Count notes how many of something the command has done.
func (r *Run) Count(what string, n int) { r.status.Counts[what] = n }

// waits notes why the command does not go on. It is only for people, so that an error of it is none of the command's.
func (r *Run) waits(ctx context.Context, why error) {
	r.status.Error = why.Error()
	if err := r.x.ledger.Put(ctx, &r.status); err != nil {
		r.x.deps.Log.Warn("the state of a command can not be noted", zap.Error(err))
	}
}

// Hold has nothing decided about anybody until the command ends.
func (r *Run) Hold(ctx context.Context) error {
	host, err := os.Hostname()
	if err != nil {
		host = "identity-stitcher"
	}
	err = r.x.holds.Register(ctx, registry.Entry{
		ID: r.holdID(), Spool: r.holdID(), Host: host, Dir: fmt.Sprintf("identity command %s (%s by %s)", r.Command.ID, r.Command.Kind, r.Command.Actor), Since: *r.status.Began,
	})
	if err == nil {
		r.x.metrics.held.Set(float64(r.status.Began.Unix()))
	}
	return err
}

// Unhold ends it. It may be called again, and without a Hold before.
func (r *Run) Unhold(ctx context.Context) error {
	if err := r.x.holds.Unregister(ctx, r.holdID()); err != nil {
		return err
	}
	r.x.metrics.held.Set(0)
	return nil
}

func (r *Run) holdID() string { return "command-" + r.Command.ID }

// Through waits until stages have read what stands at each edge now, one edge after the other, whatever is held. A stage that
// never ran is not waited for.
func (r *Run) Through(ctx context.Context, edges ...keyed.Edge) error {
	var there []keyed.Edge
	for _, e := range edges {
		var inputs []string
		for _, input := range e.Inputs {
			got, err := r.x.kafka.Committed(ctx, r.x.deps.Topics.Group(e.Stage, input), input)
			if err != nil {
				return fmt.Errorf("look whether %s reads %s: %w", e.Stage, input, err)
			}
			if slices.ContainsFunc(got, func(c stream.Committed) bool { return c.Offset >= 0 }) {
				inputs = append(inputs, input)
			}
		}
		if len(inputs) > 0 {
			e.Inputs = inputs
			there = append(there, e)
		}
	}
	return r.x.through(ctx, there)
}

// Output is a record that a command publishes.
type Output struct {
	Topic   string
	Index   int // at least FirstIndex, and the same each time
	Key     string
	Value   []byte
	Headers []topic.Header // without position
}

// Publish publishes records, whose indexes grow. Those of one topic and partition keep their order.
func (r *Run) Publish(ctx context.Context, outs []Output) error {
	type place struct {
		topic     string
		partition int
	}
	at := map[place][]stream.Record{}
	var order []place
	for i := range outs {
		o := &outs[i]
		if o.Index > lastIndex {
			return Refuse("the command has more than %d records to tell", lastIndex)
		}
		p := place{o.Topic, topic.Partition([]byte(o.Key), r.x.deps.Topics.Partitions)}
		if at[p] == nil {
			order = append(order, p)
		}
		pos := topic.Position{Stage: topic.StageCommands, Partition: r.Partition, Seq: r.Offset<<indexBits | int64(o.Index)}
		hs := append(slices.Clone(o.Headers), topic.Header{Key: topic.HeaderPosition, Value: []byte(pos.String())})
		at[p] = append(at[p], stream.Record{Key: []byte(o.Key), Value: o.Value, Headers: hs})
	}
	for _, p := range order {
		for some := range slices.Chunk(at[p], producedAtOnce) {
			if err := r.x.kafka.Produce(ctx, p.topic, p.partition, some); err != nil {
				return fmt.Errorf("publish to %s: %w", p.topic, err)
			}
		}
	}
	return nil
}

// said are the headers of a record that only says what a command has done.
func said(kind topic.Kind) []topic.Header {
	return []topic.Header{schemaHeader(), {Key: topic.HeaderKind, Value: []byte(kind)}}
}

// outcome is the value of a record of kind command.
type outcome struct {
	identity.Command
	Outcome undo.State     `json:"outcome"`
	Error   string         `json:"error,omitempty"`
	Counts  map[string]int `json:"counts,omitempty"`
	Began   time.Time      `json:"began"`
	Ended   time.Time      `json:"ended"`
}

// end publishes how the command ended, and notes it. no is why it was refused, if it was.
func (r *Run) end(ctx context.Context, no *refusal) error {
	now := r.x.deps.Now().UTC()
	ended := r.status // a copy: it has ended only when it is told
	s := &ended
	s.State, s.Ended, s.Step, s.Error, s.Since = undo.Done, &now, "", "", nil
	if no != nil {
		s.State, s.Error = undo.Refused, no.Error()
	}
	o := outcome{Command: r.Command, Outcome: s.State, Error: s.Error, Counts: maps.Clone(s.Counts), Began: *s.Began, Ended: now}
	value, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("encode the end of command %s: %w", r.Command.ID, err)
	}
	if r.Command.Check() == nil { // else it is no command that a reader of the topic could read
		out := Output{Topic: r.x.deps.Topics.IdentitiesLinked(), Index: lastIndex, Key: r.Command.ID, Value: value, Headers: said(topic.KindCommand)}
		if err := r.Publish(ctx, []Output{out}); err != nil {
			return err
		}
	}
	if err := r.x.ledger.Put(ctx, s); err != nil {
		return err
	}
	r.x.metrics.ended.WithLabelValues(string(r.Command.Kind), string(s.State)).Inc()
	log := r.x.deps.Log.Info
	if no != nil {
		log = r.x.deps.Log.Warn
	}
	log("command has ended", zap.String("command", r.Command.ID), zap.String("kind", string(r.Command.Kind)), zap.String("outcome", string(s.State)),
		zap.String("error", s.Error), zap.Any("counts", s.Counts), zap.Duration("took", now.Sub(*s.Began)))
	return nil
}
