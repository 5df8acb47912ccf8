package stitcher

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/suppression"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Rebuild makes the identity graph and the slots of the stage again. Nothing of the stage may be running. What
// was read and not published before the loss is decided again, and published when the stage starts.
func Rebuild(ctx context.Context, cfg config.Config, deps Deps, opt keyed.RebuildOptions) (keyed.RebuildReport, error) {
	stage, judges, err := newRebuild(ctx, cfg, deps, opt)
	if err != nil {
		return keyed.RebuildReport{}, fmt.Errorf("identity-stitcher: %w", err)
	}
	defer judges.leave()
	return stage.Rebuild(ctx, opt)
}

func newRebuild(ctx context.Context, cfg config.Config, deps Deps, opt keyed.RebuildOptions) (*keyed.Stage, *judges, error) {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	rules, err := loadRules(cfg.Identity)
	if err != nil {
		return nil, nil, err
	}
	m, err := newMetrics(nil)
	if err != nil {
		return nil, nil, err
	}
	topics := cfg.Topics.Set()
	graph, judged := identity.NewGraph(deps.Store, topics.Prefix), policy(cfg.Identity, rules)
	p := &replanner{
		planner: planner{
			rules: rules, graph: graph, resolver: identity.NewResolver(graph, cfg.Stitcher.CacheEntries, judged), topics: topics,
			judges: newJudges(deps.Store, deps.Log, topics, rules.Judgement(judged)),
			window: cfg.Stitcher.DuplicateWindow, now: deps.Now, metrics: m,
		},
		store: deps.Store, from: opt.From, published: map[place]bool{}, unnamed: map[string]bool{},
	}
	if opt.From.Prefix == topics.Prefix {
		if p.commits, err = deps.Stream.Committed(ctx, topics.Group(topic.StageStitcher, topics.EventsCollected()), topics.EventsCollected()); err != nil {
			return nil, nil, err
		}
	}
	stage, err := keyed.NewPlan(keyed.Options{
		Stage: topic.StageStitcher, Input: topics.EventsCollected(), Topics: topics, BatchRecords: cfg.Stitcher.BatchRecords,
		Admit: p.judges.admit(identity.Admit(deps.Store, keyed.DeploymentKey(topics), rules, stream.ErrStop)),
	}, p, keyed.Deps{Stream: deps.Stream, Store: deps.Store, Log: deps.Log, Now: deps.Now})
	return stage, p.judges, err
}

// place is a record of events.collected.
type place struct {
	partition int
	offset    int64
}

// replanner is planner in a rebuild. Of records before Kafka's commit, of which everything is published, it
// remembers the message ids; those behind it are decided again, but what stands on events.identified already
// is not handed out.
type replanner struct {
	planner
	store   *store.Client
	from    topic.Set
	commits []stream.Committed // empty: everything was published (another deployment, at rest)

	published map[place]bool  // events behind the commit that stand on events.identified,
	unnamed   map[string]bool // and those of before the header weft-at was: by source and message id
}

var _ keyed.PlanRestorer = (*replanner)(nil)

// behind says whether a record lies behind its partition's commit.
func (p *replanner) behind(at place) bool {
	return at.partition < len(p.commits) && at.offset >= p.commits[at.partition].Offset
}

// Recall reads what was published, and makes the graph of it.
func (p *replanner) Recall(ctx context.Context, read keyed.Reader) error {
	if err := p.forgetGraph(ctx); err != nil {
		return err
	}
	batch := &writes{ctx: ctx, store: p.store}
	graph := identity.NewRestore(p.graph, batch.put)
	seen, err := p.readIdentified(ctx, read)
	if err != nil {
		return err
	}
	var erased refill
	for part := range p.from.Partitions {
		_, err := read(ctx, p.from.IdentitiesLinked(), part, func(r keyed.Record) error {
			erased.see(&r)
			switch r.Kind {
			case topic.KindSuspend:
				return nil // a suspended link is none
			case topic.KindState:
				s, err := identity.ParseNodeState(r.Value)
				if err != nil {
					return nil //nolint:nilerr // not of the stitcher's making
				}
				return graph.State(&s)
			case topic.KindSplit:
				s, err := identity.ParseParted(r.Value)
				if err != nil {
					return nil //nolint:nilerr // not of the stage of commands' making
				}
				return graph.Parted(&s)
			case topic.KindPart:
				s, err := identity.ParsePart(r.Value)
				if err != nil {
					return nil //nolint:nilerr // not of the stage of commands' making
				}
				return graph.Part(&s)
			case topic.KindCommand:
				return nil // what it did stands in the others
			}
			m, err := identity.ParseMerge(r.Value)
			if err != nil {
				return nil //nolint:nilerr // not of the stitcher's making
			}
			delete(seen.unlinked, m.Loser)
			return graph.Link(&m, seen.has(m.Loser, r.Position))
		})
		if err != nil {
			return err
		}
	}
	// A merge whose link is missing on its topic was cut off between the two: both are published again.
	for _, m := range seen.unlinked {
		if err := graph.Link(&m, false); err != nil {
			return err
		}
	}
	if _, err := graph.Roots(ctx); err != nil {
		return err
	}
	if err := batch.flush(); err != nil {
		return err
	}
	return erased.apply(ctx, suppression.NewRegister(p.store, p.topics.Prefix))
}

// forgetGraph deletes all nodes: a graph of which a part is lost is no graph.
func (p *replanner) forgetGraph(ctx context.Context) error {
	return p.store.Scan(ctx, identity.Pattern(store.Glob(p.topics.Prefix)), func(keys []string) error {
		pipe := p.store.Pipe()
		for _, k := range keys {
			pipe.Do(ctx, "UNLINK", k)
		}
		return pipe.Exec(ctx)
	})
}

// merges are those that events.identified still holds.
type merges struct {
	losers   map[string]bool
	cut      bool                      // its beginning is not there any more, or not as it was published
	first    map[int]int64             // by source partition: the lowest sequence that it holds
	unlinked map[string]identity.Merge // those not met on identities.linked
}

// has says whether the merge of a link stands on events.identified, or did before retention cut it: the link
// was published in the sequence right behind it. Where nothing was cut, a merge that is not there never was: its
// batch died between the two topics, perhaps the first of its slot.
func (m *merges) has(loser string, link topic.Position) bool {
	if link.Stage == topic.StageCommands { // a command is carried out until both stand there
		return true
	}
	first, some := m.first[link.Partition]
	return m.losers[loser] || m.cut && (!some || link.Seq < first)
}

// readIdentified reads events.identified, for what was published behind the commit.
func (p *replanner) readIdentified(ctx context.Context, read keyed.Reader) (*merges, error) {
	seen := &merges{losers: map[string]bool{}, first: map[int]int64{}, unlinked: map[string]identity.Merge{}}
	for part := range p.from.Partitions {
		whole, err := read(ctx, p.from.EventsIdentified(), part, func(r keyed.Record) error {
			if r.Position.Stage == topic.StageCommands { // a split tells again what stands there, and is no batch of the stitcher
				if r.Kind == topic.KindMerge {
					if m, err := identity.ParseMerge(r.Value); err == nil {
						seen.losers[m.Loser] = true
						seen.unlinked[m.Loser] = m
					}
				}
				return nil
			}
			if r.Position.Stage != topic.StageStitcher {
				seen.cut = true // brought back from ClickHouse, which keeps no positions: the topic itself was cut
				return nil
			}
			if first, ok := seen.first[r.Position.Partition]; !ok || r.Position.Seq < first {
				seen.first[r.Position.Partition] = r.Position.Seq
			}
			if r.Kind == topic.KindMerge {
				if m, err := identity.ParseMerge(r.Value); err == nil {
					seen.losers[m.Loser] = true
					seen.unlinked[m.Loser] = m
				}
				return nil
			}
			text, named := topic.Get(r.Headers, topic.HeaderAt)
			if !named {
				p.unnamed[unnamed(r.Meta.Source, r.Meta.MessageID)] = true
				return nil
			}
			offset, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return fmt.Errorf("header %s: %w", topic.HeaderAt, err)
			}
			if at := (place{r.Position.Partition, offset}); p.behind(at) {
				p.published[at] = true
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		seen.cut = seen.cut || !whole
	}
	return seen, nil
}

// unnamed names an event that does not say which record it passes on.
func unnamed(source, messageID string) string { return string(seenID(source, messageID)) }

// Owns implements keyed.PlanRestorer: all of the slot is the stage's.
func (p *replanner) Owns(string) bool { return true }

// Until implements keyed.PlanRestorer.
func (p *replanner) Until(_ int, end int64) int64 { return end }

// Plan remembers, or decides again.
func (p *replanner) Plan(ctx context.Context, slot keyed.Slot, batch []keyed.Record) (keyed.Change, error) {
	old := len(batch)
	for old > 0 && p.behind(place{batch[old-1].Partition, batch[old-1].Offset}) {
		old--
	}
	c := p.remember(batch[:old])
	if old == len(batch) {
		return c, nil
	}
	again, err := p.plan(ctx, slot, batch[old:], c.SeenIDs)
	if err != nil {
		return c, err
	}
	again.SeenIDs = append(c.SeenIDs, again.SeenIDs...)
	again.Outputs = slices.DeleteFunc(again.Outputs, func(o keyed.Output) bool { return o.PassThrough && p.told(slot, &o) })
	return again, nil
}

// remember is the ids of records of which everything is published. A source may have repeated itself.
func (p *replanner) remember(batch []keyed.Record) keyed.Change {
	c := keyed.Change{SeenAt: p.now(), SeenWindow: p.window}
	var newest time.Time
	for i := range batch {
		r := &batch[i]
		if p.now().Sub(r.Meta.ReceivedAt) > p.window {
			continue
		}
		if it := p.read(*r); it.drop == nil && it.seenID != nil {
			c.SeenIDs = append(c.SeenIDs, it.seenID)
		}
		if r.Meta.ReceivedAt.After(newest) {
			newest = r.Meta.ReceivedAt
		}
	}
	if !newest.IsZero() && newest.Before(c.SeenAt) {
		c.SeenAt = newest
	}
	return c
}

// told says whether an event stands on events.identified.
func (p *replanner) told(slot keyed.Slot, o *keyed.Output) bool {
	source, _ := topic.Get(o.Headers, topic.HeaderSource)
	id, _ := topic.Get(o.Headers, topic.HeaderMessageID)
	return p.published[place{slot.Partition(), o.Offset}] || p.unnamed[unnamed(source, id)]
}

// Published implements keyed.Planner; nothing is published in a rebuild.
func (p *replanner) Published(context.Context, keyed.Slot, []keyed.Output) error { return nil }

// writes gathers plain writes.
type writes struct {
	ctx   context.Context
	store *store.Client
	pipe  *store.Pipe
	n     int
}

// writesAtOnce is how many values travel together: some hundred kilobytes.
const writesAtOnce = 1000

func (w *writes) put(key string, value []byte) error {
	if w.pipe == nil {
		w.pipe = w.store.Pipe()
	}
	w.pipe.Do(w.ctx, "SET", key, value)
	if w.n++; w.n < writesAtOnce {
		return nil
	}
	return w.flush()
}

func (w *writes) flush() error {
	if w.n == 0 {
		return nil
	}
	err := w.pipe.Exec(w.ctx)
	w.pipe, w.n = nil, 0
	return err
}
