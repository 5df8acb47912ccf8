package stitcher

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/suppression"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Reasons of this service on events.rejected, beside those of package event.
const (
	// ReasonDuplicate marks the trace of a dropped duplicate: no body, the headers of the event.
	ReasonDuplicate = "duplicate"
	// ReasonSuppressed marks the trace of an event that names somebody who was erased: no body, no identifier. The doors leave
	// such events out; this one was on its way already, or its door did not know yet.
	ReasonSuppressed = "suppressed"
	// ReasonUnknownKind marks a record that is no event: somebody else wrote to events.collected.
	ReasonUnknownKind = "unknown_kind"
	// reasonUnreadable is for errors of package event that carry no code of their own.
	reasonUnreadable = "unreadable"
)

// seenIDBytes is the length of the hash by which a message id is remembered. 128 bits: two different ids of
// one partition's window are taken for one with a chance below 10^-18 at a thousand million ids.
const seenIDBytes = 16

var _ keyed.Voucher = (*planner)(nil)

// planner decides batches of events.collected. Safe for concurrent use: partitions share it.
type planner struct {
	rules    *identity.Rules
	graph    *identity.Graph
	resolver *identity.Resolver // of graph
	judges   *judges
	topics   topic.Set
	window   time.Duration
	now      func() time.Time
	metrics  *metrics
	erased   *suppression.Erased
}

// item is one record on its way through Plan.
type item struct {
	record keyed.Record
	event  *event.Event
	seenID []byte              // nil: not judged for duplicates
	drop   *keyed.Output       // set: this is what becomes of it instead of an event
	aside  []identity.SetAside // before the graph was asked
	result identity.Result
}

// Plan implements keyed.Planner.
func (p *planner) Plan(ctx context.Context, slot keyed.Slot, batch []keyed.Record) (keyed.Change, error) {
	return p.plan(ctx, slot, batch, nil)
}

// plan is Plan behind records with these ids, which the slot does not know yet.
func (p *planner) plan(ctx context.Context, slot keyed.Slot, batch []keyed.Record, before [][]byte) (keyed.Change, error) {
	if err := p.judges.check(ctx); err != nil {
		return keyed.Change{}, stopping(err)
	}
	now := p.now()
	items := make([]item, len(batch))
	for i, r := range batch {
		items[i] = p.read(r)
	}
	seen, err := p.dropDuplicates(ctx, slot, items, now, before)
	if err != nil {
		return keyed.Change{}, err
	}
	if err := p.leaveOut(ctx, items); err != nil {
		return keyed.Change{}, err
	}
	if err := p.resolve(ctx, items); err != nil {
		return keyed.Change{}, err
	}
	outs, err := p.outputs(items)
	if err != nil {
		return keyed.Change{}, err
	}
	return keyed.Change{Outputs: outs, SeenIDs: seen, SeenAt: now, SeenWindow: p.window}, nil
}

// read decodes a record, or rejects it.
func (p *planner) read(r keyed.Record) item {
	if r.Kind != topic.KindEvent {
		return p.reject(r, ReasonUnknownKind, fmt.Errorf("header %s: %q has no place on this topic", topic.HeaderKind, r.Kind))
	}
	e, err := event.Decode(r.Value, r.Meta)
	if err != nil {
		return p.reject(r, event.Reason(err, reasonUnreadable), err)
	}
	if e.MessageID == "" {
		e.MessageID = origin(r)
	}
	it := item{record: r, event: e}
	if !unique(r.Position, e.MessageID) {
		it.seenID = seenID(e.Source, e.MessageID)
	}
	return it
}

// unique says whether a message id is the one that the collector gives to an inlet's record that came without:
// its place on the foreign topic. No other record has it, and this one's repeats the source position has filtered out.
// An id that the sender has given is to be judged, also beside a position: a till that sends a receipt once more makes
// another record of it.
func unique(p topic.Position, messageID string) bool {
	name, inlet := strings.CutPrefix(p.Stage, topic.StageCollector+"/")
	if !inlet {
		return false
	}
	place, same := strings.CutPrefix(messageID, name)
	if !same {
		return false
	}
	var room [48]byte
	want := strconv.AppendInt(append(room[:0], ':'), int64(p.Partition), 10)
	want = strconv.AppendInt(append(want, ':'), p.Seq, 10)
	return place == string(want)
}

func (p *planner) reject(r keyed.Record, reason string, err error) item {
	p.metrics.rejected.WithLabelValues(reason).Inc()
	out := keyed.Reject(r, topic.StageStitcher, reason, err, p.topics)
	return item{record: r, drop: &out}
}

// origin names a record of events.collected.
func origin(r keyed.Record) string {
	return r.Topic + ":" + strconv.Itoa(r.Partition) + ":" + strconv.FormatInt(r.Offset, 10)
}

// seenID is by what a message id of a source is remembered.
func seenID(source, messageID string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(source))) //nolint:gosec // a source's name is short
	b = append(append(b, source...), messageID...)
	sum := sha256.Sum256(b)
	return sum[:seenIDBytes]
}

// dropDuplicates marks the records whose message id was seen before, in the slot or in this batch, and
// returns the ids to remember.
func (p *planner) dropDuplicates(ctx context.Context, slot keyed.Slot, items []item, now time.Time, before [][]byte) ([][]byte, error) {
	var asked [][]byte
	for i := range items {
		if items[i].seenID != nil {
			asked = append(asked, items[i].seenID)
		}
	}
	if len(asked) == 0 {
		return nil, nil
	}
	known, err := slot.Seen(ctx, asked, now, p.window)
	if err != nil {
		return nil, fmt.Errorf("look for duplicates: %w", err)
	}
	fresh := make([][]byte, 0, len(asked))
	inBatch := make(map[[seenIDBytes]byte]bool, len(asked))
	for _, id := range before {
		inBatch[[seenIDBytes]byte(id)] = true
	}
	for i := range items {
		it := &items[i]
		if it.seenID == nil {
			continue
		}
		id := [seenIDBytes]byte(it.seenID)
		if known[0] || inBatch[id] {
			it.drop = p.duplicate(it)
		} else {
			inBatch[id] = true
			fresh = append(fresh, it.seenID)
		}
		known = known[1:]
	}
	return fresh, nil
}

// duplicate is the trace that a dropped duplicate leaves: headers only.
func (p *planner) duplicate(it *item) *keyed.Output {
	p.metrics.duplicates.WithLabelValues(it.event.Source).Inc()
	r := it.record
	r.Headers = topic.MetaHeaders(it.event.Meta)
	out := keyed.Reject(r, topic.StageStitcher, ReasonDuplicate, errors.New("this source has sent the message id before"), p.topics)
	out.Value = nil
	return &out
}

// leaveOut marks the events of people who were erased.
func (p *planner) leaveOut(ctx context.Context, items []item) error {
	if err := p.erased.Ensure(ctx); err != nil {
		return err // it cannot be told which
	}
	if p.erased.Len() == 0 {
		return nil
	}
	for i := range items {
		it := &items[i]
		if it.drop != nil || !p.erased.Has(it.event) {
			continue
		}
		p.metrics.rejected.WithLabelValues(ReasonSuppressed).Inc()
		r := it.record
		r.Headers, r.Key = topic.MetaHeaders(it.event.Meta), []byte(it.event.MessageID) // the sender's own key names the person
		out := keyed.Reject(r, topic.StageStitcher, ReasonSuppressed, errors.New("the event names somebody who was erased"), p.topics)
		out.Value = nil
		it.drop = &out
	}
	return nil
}

// resolve finds whose each remaining record is.
func (p *planner) resolve(ctx context.Context, items []item) error {
	requests := make([]identity.Request, 0, len(items))
	for i := range items {
		if items[i].drop == nil {
			requests = append(requests, p.request(&items[i]))
		}
	}
	if len(requests) == 0 {
		return nil
	}
	results, err := p.resolver.Resolve(ctx, requests)
	if err != nil {
		return stopping(err)
	}
	for i := range items {
		if items[i].drop == nil {
			items[i].result, results = results[0], results[1:]
			if it := &items[i]; it.result.Profile.IsZero() { // all its identifiers are blocked: it is a profile of its own
				it.result.Profile = p.rules.EventIdentifier(it.event.Source, it.event.MessageID).Node
			}
		}
	}
	return nil
}

// stopping lets the stage stop on a graph that a newer binary has written, or one too old, or that has gone back.
func stopping(err error) error {
	switch {
	case errors.Is(err, identity.ErrNewerVersion):
		return fmt.Errorf("%w: %w", keyed.ErrNewerState, err)
	case errors.Is(err, identity.ErrLost):
		return fmt.Errorf("%w: %w", keyed.ErrStateLost, err)
	case errors.Is(err, identity.ErrOldLayout), errors.Is(err, ErrOtherRules):
		return fmt.Errorf("%w: %w", stream.ErrStop, err)
	}
	return err
}

// Vouch implements keyed.Voucher: all partitions share the graph.
func (p *planner) Vouch() []byte { return p.graph.Vouch() }

// Verify implements keyed.Voucher.
func (p *planner) Verify(ctx context.Context, vouched [][]byte) error {
	return stopping(p.graph.Verify(ctx, vouched))
}

// request reads the identifiers of an event. Without any that counts, the event is a profile of its own.
func (p *planner) request(it *item) identity.Request {
	e := it.event
	ids, ignored := p.rules.Extract(e)
	for _, x := range ignored {
		p.metrics.ignored.WithLabelValues(string(x.Reason)).Inc()
	}
	if !e.Trusted { // those of types that count from trusted sources only
		ids = slices.DeleteFunc(ids, func(id identity.Identifier) bool {
			if p.rules.TypeOf(id.Node).Trust != identity.TrustTrusted {
				return false
			}
			it.aside = append(it.aside, identity.SetAside{Identifier: id, Reason: identity.ReasonUntrusted})
			return true
		})
	}
	if len(ids) == 0 {
		ids = append(ids, p.rules.EventIdentifier(e.Source, e.MessageID))
	}
	cause := identity.Cause{Source: origin(it.record), MessageID: e.MessageID, Rule: identity.RuleSameEvent, Time: e.ReceivedAt}
	if it.record.Position != (topic.Position{}) {
		cause.Source = it.record.Position.String()
	}
	if e.Type == event.Alias {
		cause.Rule = identity.RuleAlias
	}
	return identity.Request{
		Identifiers: ids, Cause: cause, Source: e.Source, Trusted: e.Trusted, At: e.Time, LogOut: p.rules.LogsOut(e),
	}
}

// outputs writes what the batch publishes, in the order of its records, merges before the event they
// matter to.
func (p *planner) outputs(items []item) ([]keyed.Output, error) {
	outs := make([]keyed.Output, 0, len(items))
	for i := range items {
		it := &items[i]
		if it.drop != nil {
			outs = append(outs, *it.drop)
			continue
		}
		for _, m := range it.result.Merges {
			pair, err := p.merge(m)
			if err != nil {
				return nil, err
			}
			outs = append(outs, pair[:]...)
		}
		for j := range it.result.Suspended {
			out, err := p.suspension(&it.result.Suspended[j], it.event.Meta)
			if err != nil {
				return nil, err
			}
			outs = append(outs, out)
		}
		for j := range it.result.States {
			out, err := p.state(&it.result.States[j], it)
			if err != nil {
				return nil, err
			}
			outs = append(outs, out)
		}
		p.metrics.events.Inc()
		outs = append(outs, keyed.Output{
			Topic:       p.topics.EventsIdentified(),
			Key:         it.result.Profile.String(),
			Headers:     p.headers(it),
			PassThrough: true,
			Offset:      it.record.Offset,
		})
	}
	return outs, nil
}

// merge is a merge twice: for the stages behind, and for whoever rebuilds the graph.
func (p *planner) merge(m identity.Merge) ([2]keyed.Output, error) {
	p.metrics.merges.Inc()
	value, err := m.Encode()
	if err != nil {
		return [2]keyed.Output{}, err
	}
	out := keyed.Output{
		Topic:   p.topics.EventsIdentified(),
		Key:     m.Loser,
		Value:   value,
		Headers: causeHeaders(topic.KindMerge, m.Cause),
	}
	link := out
	link.Topic = p.topics.IdentitiesLinked()
	return [2]keyed.Output{out, link}, nil
}

// headers are those of an event, with what it was resolved without: pairs of type and reason, each once.
func (p *planner) headers(it *item) []topic.Header {
	hs := append(topic.MetaHeaders(it.event.Meta), kindHeader(topic.KindEvent))
	var pairs []string
	for _, list := range [...][]identity.SetAside{it.aside, it.result.SetAside} {
		for _, a := range list {
			typ := p.rules.TypeOf(a.Identifier.Node).Name // of a closed set, other than the identifier's own
			p.metrics.setAside.WithLabelValues(cmp.Or(typ, otherTypes), string(a.Reason)).Inc()
			pairs = append(pairs, a.Identifier.Type+":"+string(a.Reason))
		}
	}
	if len(pairs) == 0 {
		return hs
	}
	slices.Sort(pairs)
	return append(hs, topic.Header{Key: topic.HeaderSetAside, Value: []byte(strings.Join(slices.Compact(pairs), ","))})
}

// otherTypes stands in metrics for all types that are not configured.
const otherTypes = "other"

// suspension is a link that a cap has stopped, for whoever releases or rejects it.
func (p *planner) suspension(s *identity.Suspension, m event.Meta) (keyed.Output, error) {
	p.metrics.suspended.WithLabelValues(string(s.Cap)).Inc()
	value, err := s.Encode()
	if err != nil {
		return keyed.Output{}, err
	}
	hs := causeHeaders(topic.KindSuspend, s.Cause)
	if m.Source != "" {
		hs = append(hs, topic.Header{Key: topic.HeaderSource, Value: []byte(m.Source)})
	}
	if m.Brand != "" {
		hs = append(hs, topic.Header{Key: topic.HeaderBrand, Value: []byte(m.Brand)})
	}
	return keyed.Output{Topic: p.topics.IdentitiesLinked(), Key: s.Key(), Value: value, Headers: hs}, nil
}

// state is what has become of a device, for whoever rebuilds the graph.
func (p *planner) state(s *identity.NodeState, it *item) (keyed.Output, error) {
	switch {
	case s.Shared != nil:
		p.metrics.devices.WithLabelValues("shared").Inc()
	case s.LoggedOut != nil:
		p.metrics.devices.WithLabelValues("logged_out").Inc()
	default:
		p.metrics.devices.WithLabelValues("logged_in").Inc()
	}
	value, err := s.Encode()
	if err != nil {
		return keyed.Output{}, err
	}
	cause := identity.Cause{MessageID: it.event.MessageID, Time: it.event.ReceivedAt}
	return keyed.Output{
		Topic: p.topics.IdentitiesLinked(), Key: s.Key(), Value: value, Headers: causeHeaders(topic.KindState, cause),
	}, nil
}

// causeHeaders are those of a record that a cause has brought about.
func causeHeaders(kind topic.Kind, c identity.Cause) []topic.Header {
	return []topic.Header{
		{Key: topic.HeaderSchema, Value: []byte(strconv.Itoa(topic.SchemaVersion))},
		kindHeader(kind),
		{Key: topic.HeaderMessageID, Value: []byte(c.MessageID)},
		{Key: topic.HeaderReceivedAt, Value: []byte(strconv.FormatInt(c.Time.UnixMilli(), 10))},
	}
}

func kindHeader(k topic.Kind) topic.Header {
	return topic.Header{Key: topic.HeaderKind, Value: []byte(k)}
}

// Published implements keyed.Planner: merges, suspensions and states of devices that are in Kafka need not be published by
// anybody again.
func (p *planner) Published(ctx context.Context, _ keyed.Slot, outs []keyed.Output) error {
	var losers []identity.Node
	var states []identity.NodeState
	for i := range outs {
		o := &outs[i]
		switch k, _ := topic.Get(o.Headers, topic.HeaderKind); {
		case topic.Kind(k) == topic.KindSuspend && o.Topic == p.topics.IdentitiesLinked():
			p.resolver.Announced(o.Key)
		case topic.Kind(k) == topic.KindState && o.Topic == p.topics.IdentitiesLinked():
			s, err := identity.ParseNodeState(o.Value)
			if err != nil {
				return err
			}
			states = append(states, s)
		case topic.Kind(k) == topic.KindMerge && o.Topic == p.topics.EventsIdentified():
			n, err := identity.ParseNode(o.Key)
			if err != nil {
				return fmt.Errorf("confirm a merge: key %w", err)
			}
			losers = append(losers, n)
		}
	}
	if len(states) > 0 {
		if err := p.resolver.Told(ctx, states); err != nil {
			return stopping(err)
		}
	}
	if len(losers) == 0 {
		return nil
	}
	return stopping(p.resolver.Confirm(ctx, losers))
}
