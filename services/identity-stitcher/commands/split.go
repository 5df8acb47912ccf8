package commands

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/undo"
)

// told is one event of the plan: where it stands, and whose it is now.
type told struct {
	undo.Place
	Part int `json:"n"`
}

// plan is what is told of a split. It is stored before anything of it is told, so that each attempt tells the same.
type plan struct {
	Chunks int `json:"chunks"` // of at most undo.AtOnce events
	Events int `json:"events"`
}

// decided is a request or receipt, as all parts are told of it.
type decided struct {
	Origin string `json:"o"`
	Value  []byte `json:"v"`
}

// Names of the parts of a plan.
const (
	planEvents    = "events"
	planDecisions = "decisions"
)

func chunkName(i int) string { return "events:" + strconv.Itoa(i) }

// split carries out a split; see the package's guarantee.
func (x *Executor) split(ctx context.Context, r *Run) error {
	c := &r.Command
	if x.history == nil {
		return Refuse("clickhouse.addresses is empty: identity-stitcher tells stored events again, and has no ClickHouse to read them from")
	}
	nodes, err := identity.ParseNodes(c.Members)
	if err != nil {
		return Refuse("members: %w", err)
	}
	order := identity.SplitOrder{Members: nodes, Part: func(part int, generation uint64) identity.Node { return x.deps.Rules.Part(c.ID, part, generation) }}
	for _, p := range c.Parts {
		part, err := identity.ParseNodes(p)
		if err != nil {
			return Refuse("parts: %w", err)
		}
		order.Parts = append(order.Parts, part)
	}
	if err := x.possible(ctx, r); err != nil {
		return err
	}
	if err := r.Hold(ctx); err != nil {
		return err
	}
	if err := r.Step(ctx, "take the person apart"); err != nil {
		return err
	}
	parted, err := x.deps.Graph.Split(ctx, order, func(ctx context.Context, merges []identity.Merge) error { return r.merges(ctx, merges, c.Members) })
	switch {
	case errors.Is(err, identity.ErrChanged):
		return Refuse("members: %w: make the preview, and the command, anew", err)
	case err != nil:
		return err
	}
	if err := x.settled(ctx, r); err != nil {
		return err
	}
	into := make([]string, len(c.Parts))
	for _, p := range parted {
		into[p.Part] = p.Into.String()
	}
	r.status.Parts = into
	p, err := x.planEvents(ctx, r)
	if err != nil {
		return err
	}
	next, err := x.tellParts(ctx, r, parted, into)
	if err != nil {
		return err
	}
	all, err := x.planDecisions(ctx, r)
	if err != nil {
		return err
	}
	if next, err = x.tellDecisions(ctx, r, all, into, next); err != nil {
		return err
	}
	if next, err = x.tellEvents(ctx, r, p, into, next); err != nil {
		return err
	}
	if err := x.tellRefolded(ctx, r, parted, into, next); err != nil {
		return err
	}
	r.Count("parts", len(into))
	r.Count("identifiers", len(c.Members))
	r.Count("events", p.Events)
	r.Count("messages", len(all))
	return x.folded(ctx, r)
}

// possible looks, before anything is held or changed, whether what the split needs is there.
func (x *Executor) possible(ctx context.Context, r *Run) error {
	var begun plan
	if ok, err := x.ledger.Plan(ctx, r.Command.ID, planEvents, &begun); ok || err != nil {
		return err
	}
	if err := r.Step(ctx, "reach ClickHouse"); err != nil {
		return err
	}
	places, err := x.history.Places(ctx, r.Command.Members)
	if err != nil {
		return err
	}
	if len(places) > undo.MaxEvents {
		return Refuse("the person has %d events, and %d are the most that are told again", len(places), undo.MaxEvents)
	}
	return nil
}

// merges publishes merges that stand before the split, each under the number of its loser among the members.
func (r *Run) merges(ctx context.Context, merges []identity.Merge, members []string) error {
	sorted := slices.Sorted(slices.Values(members))
	slices.SortFunc(merges, func(a, b identity.Merge) int { return compare(a.Loser, b.Loser) })
	var outs []Output
	for i := range merges {
		at, found := slices.BinarySearch(sorted, merges[i].Loser)
		if !found {
			return fmt.Errorf("a merge of %s, which is no member, was to be published", merges[i].Loser)
		}
		pair, err := r.merge(&merges[i], at)
		if err != nil {
			return err
		}
		outs = append(outs, pair...)
	}
	return r.Publish(ctx, outs)
}

// merge is a merge twice, as the stitcher publishes it.
func (r *Run) merge(m *identity.Merge, index int) ([]Output, error) {
	value, err := m.Encode()
	if err != nil {
		return nil, err
	}
	out := Output{Topic: r.x.deps.Topics.EventsIdentified(), Index: index, Key: m.Loser, Value: value, Headers: []topic.Header{
		schemaHeader(), {Key: topic.HeaderKind, Value: []byte(topic.KindMerge)}, {Key: topic.HeaderMessageID, Value: []byte(m.Cause.MessageID)},
		{Key: topic.HeaderReceivedAt, Value: []byte(strconv.FormatInt(m.Cause.Time.UnixMilli(), 10))},
	}}
	link := out
	link.Topic = r.x.deps.Topics.IdentitiesLinked()
	return []Output{out, link}, nil
}

// settled waits until all that was decided for the person stands in ClickHouse.
func (x *Executor) settled(ctx context.Context, r *Run) error {
	var p plan
	if ok, err := x.ledger.Plan(ctx, r.Command.ID, planEvents, &p); ok || err != nil {
		return err // an earlier attempt has waited for it
	}
	if err := r.Step(ctx, "wait until all that came before is in ClickHouse"); err != nil {
		return err
	}
	t := x.deps.Topics
	return r.Through(ctx,
		keyed.Edge{Inputs: []string{t.EventsCollected()}, Stage: topic.StageStitcher, Slots: true},
		keyed.Edge{Inputs: []string{t.EventsIdentified()}, Stage: topic.StageWriter})
}

// planEvents makes, or reads, the plan of which event goes to which part.
func (x *Executor) planEvents(ctx context.Context, r *Run) (plan, error) {
	var p plan
	if ok, err := x.ledger.Plan(ctx, r.Command.ID, planEvents, &p); ok || err != nil {
		return p, err
	}
	if err := r.Step(ctx, "work out whose each event is"); err != nil {
		return p, err
	}
	places, err := x.history.Places(ctx, r.Command.Members)
	if err != nil {
		return p, err
	}
	parts, members := undo.NewParts(r.Command.Parts), membersOf(&r.Command)
	for some := range slices.Chunk(places, undo.AtOnce) {
		events, err := x.history.Events(ctx, members, some)
		if err != nil {
			return p, err
		}
		chunk := make([]told, len(events))
		for i := range events {
			chunk[i] = told{events[i].Place, parts.Of(&events[i])}
		}
		if err := x.ledger.SavePlan(ctx, r.Command.ID, chunkName(p.Chunks), chunk); err != nil {
			return p, err
		}
		p.Chunks++
		p.Events += len(chunk)
	}
	return p, x.ledger.SavePlan(ctx, r.Command.ID, planEvents, p)
}

func membersOf(c *identity.Command) map[string]bool {
	m := make(map[string]bool, len(c.Members))
	for _, n := range c.Members {
		m[n] = true
	}
	return m
}

// tellParts tells every member where it went, and that there are parts. It returns the next number.
func (x *Executor) tellParts(ctx context.Context, r *Run, parted []identity.PartedNode, into []string) (int, error) {
	if err := r.Step(ctx, "tell where the identifiers went"); err != nil {
		return 0, err
	}
	c, next := &r.Command, FirstIndex
	outs := make([]Output, 0, 2*len(parted)+len(into))
	for i := range parted {
		p := &parted[i]
		value, err := encode(identity.Parted{
			Command: c.ID, Node: p.Node.String(), Into: p.Into.String(), Person: c.Person, Generation: p.Generation, Day: p.Day, Degree: p.Degree,
			Time: c.At, Actor: c.Actor, Reason: c.Reason,
		})
		if err != nil {
			return 0, err
		}
		for _, name := range []string{x.deps.Topics.EventsIdentified(), x.deps.Topics.IdentitiesLinked()} {
			outs = append(outs, Output{Topic: name, Index: next, Key: p.Node.String(), Value: value, Headers: said(topic.KindSplit)})
			next++
		}
	}
	for i := range into {
		part := partOf(c, parted, into, i)
		value, err := encode(part)
		if err != nil {
			return 0, err
		}
		outs = append(outs, Output{Topic: x.deps.Topics.IdentitiesLinked(), Index: next, Key: part.Key(), Value: value, Headers: said(topic.KindPart)})
		next++
	}
	return next, r.Publish(ctx, outs)
}

// partOf is what is said of a part: it must not be one person with any other.
func partOf(c *identity.Command, parted []identity.PartedNode, into []string, i int) identity.Part {
	p := identity.Part{Command: c.ID, Node: into[i], Cuts: [][2]string{}, Time: c.At}
	for k := range parted {
		if parted[k].Part == i {
			p.Generation = parted[k].Generation
			break
		}
	}
	for j, other := range into {
		if j != i {
			p.Cuts = append(p.Cuts, [2]string{min(into[i], other), max(into[i], other)})
		}
	}
	return p
}

// planDecisions makes, or reads, the plan of what was decided about the person. It waits until the activator knows that the
// person is no more, so that nothing is decided behind it.
func (x *Executor) planDecisions(ctx context.Context, r *Run) ([]decided, error) {
	var all []decided
	if ok, err := x.ledger.Plan(ctx, r.Command.ID, planDecisions, &all); ok || err != nil {
		return all, err
	}
	if err := r.Step(ctx, "wait until all messages that were decided are in ClickHouse"); err != nil {
		return nil, err
	}
	t := x.deps.Topics
	err := r.Through(ctx,
		keyed.Edge{Inputs: []string{t.EventsIdentified()}, Stage: topic.StageDecide, Slots: true},
		keyed.Edge{Inputs: []string{t.ActivationsRequested(), t.ActivationsSettled()}, Stage: topic.StageWriter})
	if err != nil {
		return nil, err
	}
	recs, err := x.history.Decisions(ctx, r.Command.Members)
	if err != nil {
		return nil, err
	}
	all = make([]decided, len(recs))
	for i := range recs {
		all[i] = decided{Origin: fmt.Sprintf("%s:%d:%d", recs[i].Topic, recs[i].Partition, recs[i].Offset), Value: recs[i].Value}
	}
	return all, x.ledger.SavePlan(ctx, r.Command.ID, planDecisions, all)
}

// tellDecisions tells every part what was decided about the person, whosever cart it was: a part that has not got the cart has
// no use for it.
func (x *Executor) tellDecisions(ctx context.Context, r *Run, all []decided, into []string, next int) (int, error) {
	if next+len(all)*len(into) > lastIndex {
		return 0, Refuse("%d messages for %d parts are more than can be told", len(all), len(into))
	}
	if err := r.Step(ctx, "tell the parts of messages"); err != nil {
		return 0, err
	}
	for _, part := range into {
		outs := make([]Output, len(all))
		for i := range all {
			outs[i] = Output{Topic: x.deps.Topics.EventsIdentified(), Index: next, Key: part, Value: all[i].Value,
				Headers: r.refold(said(topic.KindDecision), all[i].Origin)}
			next++
		}
		if err := r.Publish(ctx, outs); err != nil {
			return 0, err
		}
	}
	return next, nil
}

// refold adds the headers of what is told again.
func (r *Run) refold(hs []topic.Header, origin string) []topic.Header {
	hs = append(hs, topic.Header{Key: topic.HeaderRefold, Value: []byte(r.Command.ID)})
	if origin != "" {
		hs = append(hs, topic.Header{Key: topic.HeaderOrigin, Value: []byte(origin)})
	}
	return hs
}

// tellEvents tells each event again, under its part.
func (x *Executor) tellEvents(ctx context.Context, r *Run, p plan, into []string, next int) (int, error) {
	if err := r.Step(ctx, "tell the parts of their events"); err != nil {
		return 0, err
	}
	members := membersOf(&r.Command)
	for i := range p.Chunks {
		var chunk []told
		if ok, err := x.ledger.Plan(ctx, r.Command.ID, chunkName(i), &chunk); err != nil || !ok {
			return 0, errors.Join(err, errors.New("a part of the plan is not in Redis"))
		}
		places := make([]undo.Place, len(chunk))
		for j := range chunk {
			places[j] = chunk[j].Place
		}
		events, err := x.history.Events(ctx, members, places)
		if err != nil {
			return 0, err
		}
		outs := make([]Output, len(events))
		for j := range events {
			outs[j] = Output{Topic: x.deps.Topics.EventsIdentified(), Index: next, Key: into[chunk[j].Part], Value: events[j].Record.Value,
				Headers: r.refold(events[j].Record.Headers, places[j].Origin())}
			next++
		}
		if err := r.Publish(ctx, outs); err != nil {
			return 0, err
		}
	}
	return next, nil
}

// tellRefolded tells each part that it has been told all.
func (x *Executor) tellRefolded(ctx context.Context, r *Run, parted []identity.PartedNode, into []string, next int) error {
	outs := make([]Output, len(into))
	for i := range into {
		value, err := encode(partOf(&r.Command, parted, into, i))
		if err != nil {
			return err
		}
		outs[i] = Output{Topic: x.deps.Topics.EventsIdentified(), Index: next + i, Key: into[i], Value: value, Headers: r.refold(said(topic.KindRefolded), "")}
	}
	return r.Publish(ctx, outs)
}

// folded waits until the stages have taken all of it in, and lets decisions go on.
func (x *Executor) folded(ctx context.Context, r *Run) error {
	if err := r.Step(ctx, "wait until profiles and carts have been made anew"); err != nil {
		return err
	}
	input := []string{x.deps.Topics.EventsIdentified()}
	if err := r.Through(ctx, keyed.Edge{Inputs: input, Stage: topic.StageDecide, Slots: true}, keyed.Edge{Inputs: input, Stage: topic.StageBuilder, Slots: true}); err != nil {
		return err
	}
	if err := r.Unhold(ctx); err != nil {
		return err
	}
	if err := r.Step(ctx, "wait until ClickHouse knows it"); err != nil {
		return err
	}
	t := x.deps.Topics
	return r.Through(ctx, keyed.Edge{Inputs: []string{t.EventsIdentified(), t.IdentitiesLinked(), t.ProfilesChanged()}, Stage: topic.StageWriter})
}
