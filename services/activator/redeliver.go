package activator

import (
	"context"
	"fmt"
	"strings"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// RebuildDelivery makes the slots of the deliver stage again. Nothing of the stage may be running. Requests
// with a receipt are done. Of the others, as many as may have been on their way when Redis lost its state
// count as begun: through a channel that cannot tell repetitions they are not sent, and their receipt says
// unknown.
func RebuildDelivery(ctx context.Context, cfg config.Config, deps Deps, opt keyed.RebuildOptions) (keyed.RebuildReport, error) {
	topics := cfg.Topics.Set()
	p := &redelivery{
		topics: topics, from: opt.From, store: deps.Store, atOnce: min(cfg.Activator.BatchRecords, deliverBatch),
		ended: map[string]bool{}, until: map[int]int64{},
	}
	var err error
	input := topics.ActivationsRequested()
	if p.commits, err = deps.Stream.Committed(ctx, topics.Group(topic.StageDeliver, input), input); err != nil {
		return keyed.RebuildReport{}, fmt.Errorf("activator: %w", err)
	}
	stage, err := keyed.NewPlan(keyed.Options{Stage: topic.StageDeliver, Input: input, Topics: topics, BatchRecords: p.atOnce}, p,
		keyed.Deps{Stream: deps.Stream, Store: deps.Store, Log: deps.Log, Now: deps.Now})
	if err != nil {
		return keyed.RebuildReport{}, fmt.Errorf("activator: %w", err)
	}
	return stage.Rebuild(ctx, opt)
}

// redelivery is delivery in a rebuild: it delivers nothing.
type redelivery struct {
	topics, from topic.Set
	store        *store.Client
	commits      []stream.Committed
	atOnce       int

	ended map[string]bool // messages that have a receipt
	until map[int]int64   // by partition: the first request without one
}

var _ keyed.PlanRestorer = (*redelivery)(nil)

// Recall finds the requests without a receipt. Receipts are published in the order of their requests, a batch
// before the next is begun, so what may have been begun is the first of them, up to a batch.
func (p *redelivery) Recall(ctx context.Context, read keyed.Reader) error {
	for part := range p.from.Partitions {
		_, err := read(ctx, p.from.ActivationsSettled(), part, func(r keyed.Record) error {
			x, forMessage, err := journey.PublishedReceipt(r.Value)
			if err == nil && forMessage {
				p.ended[x.Receipt] = true
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if p.from.Prefix != p.topics.Prefix {
		return nil // at rest: all have theirs
	}
	for part := range p.from.Partitions {
		if err := p.recallRequests(ctx, part, read); err != nil {
			return err
		}
	}
	return nil
}

func (p *redelivery) recallRequests(ctx context.Context, part int, read keyed.Reader) error {
	var begun []string
	_, err := read(ctx, p.from.ActivationsRequested(), part, func(r keyed.Record) error {
		req, err := journey.DecodeRequest(r.Value)
		if err != nil || p.ended[req.Receipt] || r.Offset < p.commits[part].Offset {
			return nil //nolint:nilerr // what can not be read was rejected, or will be
		}
		if _, found := p.until[part]; !found {
			p.until[part] = r.Offset
		}
		if len(begun) < p.atOnce {
			begun = append(begun, req.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range begun {
		// Marks that were not lost stand as they are, with the ends beside them.
		mark := keyed.SlotTag(p.topics, topic.StageDeliver, part) + attemptKey + id + ":1"
		if _, err := p.store.SetNX(ctx, mark, []byte("lost, and rebuilt"), markTTL); err != nil {
			return err
		}
	}
	return nil
}

// Owns implements keyed.PlanRestorer: attempts and their ends stay, as far as they were not lost.
func (p *redelivery) Owns(key string) bool {
	return !strings.HasPrefix(key, attemptKey) && !strings.HasPrefix(key, endKey)
}

// Until implements keyed.PlanRestorer.
func (p *redelivery) Until(partition int, end int64) int64 {
	if at, ok := p.until[partition]; ok {
		return at
	}
	return end
}

// Plan implements keyed.Planner: what is before Until is done.
func (p *redelivery) Plan(context.Context, keyed.Slot, []keyed.Record) (keyed.Change, error) {
	return keyed.Change{}, nil
}

// Published implements keyed.Planner; nothing is published in a rebuild.
func (p *redelivery) Published(context.Context, keyed.Slot, []keyed.Output) error { return nil }
