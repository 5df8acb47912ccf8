// Package erase carries out the command that a person is forgotten.
//
// It owns: the steps of an erasure and their order, and how rejected events are known to be a person's. It guarantees that an
// erasure that has begun ends, however often the process dies on the way; that nothing is sent to the person, and nothing of
// the person is taken any more, from the moment that everybody knows of it (suppression.Bound); and that it is done only when
// ClickHouse was asked again and has no row of the person left. It says how many there were.
//
// It must not know how commands are read, held and told (package commands), nor how rows are deleted (package warehouse).
package erase

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/suppression"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/undo"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/services/identity-stitcher/commands"
)

// maxRegrowths is how often the person may have got another identifier since it was looked at: what was on its way is in after
// the first time.
const maxRegrowths = 10

// insertLimit bounds the insert of where the identifiers lead.
const insertLimit = time.Minute

// Graph is what an erasure changes of the graph; *identity.Resolver has it.
type Graph interface {
	Forget(ctx context.Context, members []identity.Node, part func(part int, generation uint64) identity.Node,
		publish func(ctx context.Context, merges []identity.Merge) error) ([]identity.PartedNode, error)
}

// Register is who was erased; *suppression.Register has it.
type Register interface {
	Add(ctx context.Context, nodes []identity.Node) error
	Remove(ctx context.Context, nodes []identity.Node) error
}

// Warehouse is what is asked of ClickHouse; *warehouse.Client has it.
type Warehouse interface {
	CountPerson(ctx context.Context, e *warehouse.Erasure) ([]warehouse.TableCount, error)
	ErasePerson(ctx context.Context, e *warehouse.Erasure) error
	EachRejected(ctx context.Context, f func(r *warehouse.RejectedRow) error) error
	EraseRejected(ctx context.Context, command string, rows []warehouse.Origin) error
	LinkedKeys(ctx context.Context, e *warehouse.Erasure) ([]string, error)
	LeadOn(ctx context.Context, e *warehouse.Erasure, to []warehouse.Lead, limit time.Duration) error
}

// Ledger keeps the plan of a command; *undo.Ledger has it.
type Ledger interface {
	SavePlan(ctx context.Context, id, name string, chunk any) error
	Plan(ctx context.Context, id, name string, into any) (bool, error)
}

// Deps are the parts that an eraser stands on.
type Deps struct {
	Graph     Graph
	Loader    identity.Loader // of the same graph
	Register  Register
	Warehouse Warehouse // nil: there is none, and every erasure is refused
	Ledger    Ledger
	Rules     *identity.Rules
	Topics    topic.Set
	Pause     func(ctx context.Context, d time.Duration) error // nil: sleeps
}

// Eraser carries erasures out.
type Eraser struct{ Deps }

// New makes an eraser. It reaches nothing.
func New(deps Deps) *Eraser {
	if deps.Pause == nil {
		deps.Pause = sleep
	}
	return &Eraser{deps}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Let carries out that identifiers may come in again.
func (e *Eraser) Let(ctx context.Context, r *commands.Run) error {
	nodes, err := identity.ParseNodes(r.Command.Members)
	if err != nil {
		return commands.Refuse("members: %w", err)
	}
	if err := r.Step(ctx, "let the identifiers in again"); err != nil {
		return err
	}
	if err := e.Register.Remove(ctx, nodes); err != nil {
		return err
	}
	r.Count("identifiers", len(nodes))
	return e.Pause(ctx, suppression.Bound)
}

// Erase carries out an erasure; see the package's guarantee.
func (e *Eraser) Erase(ctx context.Context, r *commands.Run) error {
	if e.Warehouse == nil {
		return commands.Refuse("clickhouse.addresses is empty: identity-stitcher deletes the person's rows, and has no ClickHouse to delete them from")
	}
	c := &r.Command
	asked, err := identity.ParseNodes(c.Members)
	if err != nil {
		return commands.Refuse("members: %w", err)
	}
	if err := e.begin(ctx, r, asked); err != nil {
		return err
	}
	if err := r.Hold(ctx); err != nil {
		return err
	}
	if err := e.suppress(ctx, r, asked); err != nil {
		return err
	}
	if err := e.settled(ctx, r); err != nil {
		return err
	}
	parted, err := e.forget(ctx, r, asked)
	if err != nil {
		return err
	}
	x := &warehouse.Erasure{Command: c.ID, CommandsTopic: e.Topics.IdentitiesCommands()}
	for _, p := range parted {
		x.Members = append(x.Members, uuid.UUID(p.Node))
	}
	if err := e.count(ctx, r, x); err != nil {
		return err
	}
	if err := e.tell(ctx, r, x, parted); err != nil {
		return err
	}
	if err := e.delete(ctx, r, x, parted); err != nil {
		return err
	}
	return e.check(ctx, r, x)
}

// Names of the parts of a plan.
const (
	planBegun   = "begun"
	planMembers = "members:" // and a number: the highest counts
	planCounts  = "counts"
	planTold    = "told" // keys of identities.linked, beside those of the members
)

// begin refuses an erasure of a person who is not as it was made for. Nothing has changed then.
func (e *Eraser) begin(ctx context.Context, r *commands.Run, asked []identity.Node) error {
	var begun bool
	if ok, err := e.Ledger.Plan(ctx, r.Command.ID, planBegun, &begun); ok || err != nil {
		return err
	}
	members, err := identity.Members(ctx, e.Loader, asked[0])
	if err != nil {
		return err
	}
	if !same(members, asked) {
		return commands.Refuse("members: the person has other identifiers than when the command was made: make the preview, and the command, anew")
	}
	return e.Ledger.SavePlan(ctx, r.Command.ID, planBegun, true)
}

// same says whether two lists hold the same nodes; the first is in order.
func same(sorted, other []identity.Node) bool {
	return slices.Equal(sorted, slices.Compact(slices.SortedFunc(slices.Values(other), identity.Node.Compare)))
}

// suppress puts identifiers on the register, and waits until all doors and activators have taken that.
func (e *Eraser) suppress(ctx context.Context, r *commands.Run, nodes []identity.Node) error {
	if err := r.Step(ctx, "suppress the identifiers"); err != nil {
		return err
	}
	if err := e.Register.Add(ctx, nodes); err != nil {
		return err
	}
	return e.Pause(ctx, suppression.Bound)
}

// settled waits until all that was taken before stands in ClickHouse: of what follows, nothing is of the person.
func (e *Eraser) settled(ctx context.Context, r *commands.Run) error {
	if err := r.Step(ctx, "wait until all that came before is decided"); err != nil {
		return err
	}
	return r.Through(ctx, keyed.Edge{Inputs: []string{e.Topics.EventsCollected()}, Stage: topic.StageStitcher, Slots: true})
}

// forget takes the person apart in the graph. What was on its way may have added an identifier: it is the person's, too.
func (e *Eraser) forget(ctx context.Context, r *commands.Run, asked []identity.Node) ([]identity.PartedNode, error) {
	if err := r.Step(ctx, "forget the person in the graph"); err != nil {
		return nil, err
	}
	c := &r.Command
	last, members, err := e.planned(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	for {
		if last >= 0 {
			part := func(part int, generation uint64) identity.Node { return e.Rules.Afresh(c.ID, part, generation) }
			parted, err := e.Graph.Forget(ctx, members, part, func(ctx context.Context, merges []identity.Merge) error {
				return r.PublishMerges(ctx, merges, textsOf(members))
			})
			if !errors.Is(err, identity.ErrChanged) {
				return parted, err
			}
		}
		now, err := identity.Members(ctx, e.Loader, asked[0])
		switch {
		case err != nil:
			return nil, err
		case last >= 0 && same(now, members):
			return nil, errors.New("a link of the person is not complete yet")
		case last == maxRegrowths:
			return nil, fmt.Errorf("the person got another identifier %d times", maxRegrowths)
		}
		if err := e.Register.Add(ctx, now); err != nil {
			return nil, err
		}
		last, members = last+1, now
		if err := e.Ledger.SavePlan(ctx, c.ID, planMembers+strconv.Itoa(last), textsOf(now)); err != nil {
			return nil, err
		}
	}
}

// planned reads for which members the person was, or was to be, forgotten last: -1, never.
func (e *Eraser) planned(ctx context.Context, command string) (last int, members []identity.Node, err error) {
	for last = -1; ; last++ {
		var texts []string
		ok, err := e.Ledger.Plan(ctx, command, planMembers+strconv.Itoa(last+1), &texts)
		if err != nil || !ok {
			return last, members, err
		}
		if members, err = identity.ParseNodes(texts); err != nil {
			return last, nil, err
		}
	}
}

// count notes how many rows there are, once.
func (e *Eraser) count(ctx context.Context, r *commands.Run, x *warehouse.Erasure) error {
	counts := map[string]int{}
	ok, err := e.Ledger.Plan(ctx, r.Command.ID, planCounts, &counts)
	if err != nil {
		return err
	}
	if !ok {
		if err := r.Step(ctx, "count what there is"); err != nil {
			return err
		}
		if err := r.Through(ctx, e.writer()...); err != nil {
			return err
		}
		if counts, err = Counts(ctx, e.Warehouse, e.Rules, x); err != nil {
			return err
		}
		if err := e.Ledger.SavePlan(ctx, r.Command.ID, planCounts, counts); err != nil {
			return err
		}
	}
	for what, n := range counts {
		r.Count(what, n)
	}
	r.Count("identifiers", len(x.Members))
	return nil
}

// writer is all that journey-writer reads.
func (e *Eraser) writer() []keyed.Edge {
	t := e.Topics
	return []keyed.Edge{{Stage: topic.StageWriter, Inputs: []string{
		t.EventsIdentified(), t.EventsRejected(), t.IdentitiesLinked(), t.ProfilesChanged(), t.AudiencesChanged(), t.ActivationsRequested(), t.ActivationsSettled(),
	}}}
}

// tell has the stages drop what they hold, and puts what holds nothing in the place of what stands on compacted topics.
func (e *Eraser) tell(ctx context.Context, r *commands.Run, x *warehouse.Erasure, parted []identity.PartedNode) error {
	if err := r.Step(ctx, "tell the stages"); err != nil {
		return err
	}
	var others []string
	ok, err := e.Ledger.Plan(ctx, r.Command.ID, planTold, &others)
	if err != nil {
		return err
	}
	if !ok {
		if others, err = e.Warehouse.LinkedKeys(ctx, x); err != nil {
			return err
		}
		if err := e.Ledger.SavePlan(ctx, r.Command.ID, planTold, others); err != nil {
			return err
		}
	}
	outs, err := e.outputs(&r.Command, parted, others)
	if err != nil {
		return err
	}
	if err := r.Publish(ctx, outs); err != nil {
		return err
	}
	if err := r.Step(ctx, "wait until the stages have let go"); err != nil {
		return err
	}
	t := e.Topics
	edges := []keyed.Edge{
		{Inputs: []string{t.EventsIdentified()}, Stage: topic.StageDecide, Slots: true},
		{Inputs: []string{t.EventsIdentified()}, Stage: topic.StageBuilder, Slots: true},
		{Inputs: []string{t.ActivationsRequested()}, Stage: topic.StageDeliver, Slots: true},
	}
	return r.Through(ctx, append(edges, e.writer()...)...)
}

// outputs are the records of an erasure, in the order of their numbers.
func (e *Eraser) outputs(c *identity.Command, parted []identity.PartedNode, others []string) ([]commands.Output, error) {
	next := commands.FirstIndex
	var outs []commands.Output
	add := func(topicName string, kind topic.Kind, key string, value []byte) {
		outs = append(outs, commands.Output{Topic: topicName, Index: next, Key: key, Value: value, Headers: commands.Said(kind)})
		next++
	}
	for i := range parted {
		p := &parted[i]
		word := identity.Parted{
			Command: c.ID, Node: p.Node.String(), Into: p.Into.String(), Person: c.Person, Generation: p.Generation, Time: c.At, Actor: c.Actor, Reason: c.Reason,
		}
		value, err := encode(word)
		if err != nil {
			return nil, err
		}
		add(e.Topics.EventsIdentified(), topic.KindErase, word.Node, value)
		// Where the graph is made again of this topic, the identifier leads to its new node; that they were one person is gone.
		word.Person = word.Node
		if value, err = encode(word); err != nil {
			return nil, err
		}
		add(e.Topics.IdentitiesLinked(), topic.KindSplit, word.Node, value)
		part := identity.Part{Command: c.ID, Node: word.Into, Generation: p.Generation, Cuts: [][2]string{}, Time: c.At}
		if value, err = encode(part); err != nil {
			return nil, err
		}
		add(e.Topics.IdentitiesLinked(), topic.KindPart, part.Key(), value)
	}
	for _, key := range others {
		add(e.Topics.IdentitiesLinked(), topic.KindSuspend, key, nil)
	}
	return outs, nil
}

// delete empties ClickHouse of the person, and keeps where the identifiers lead if they come again.
func (e *Eraser) delete(ctx context.Context, r *commands.Run, x *warehouse.Erasure, parted []identity.PartedNode) error {
	if err := r.Step(ctx, "delete the rows in ClickHouse"); err != nil {
		return err
	}
	leads := make([]warehouse.Lead, len(parted))
	for i, p := range parted {
		leads[i] = warehouse.Lead{Node: uuid.UUID(p.Node), To: uuid.UUID(p.Into), Generation: p.Generation, At: r.Command.At,
			Origin: warehouse.Origin{Topic: x.CommandsTopic, Partition: uint32(r.Partition), Offset: uint64(r.Offset)}} //nolint:gosec // of a record
	}
	if err := e.Warehouse.LeadOn(ctx, x, leads, insertLimit); err != nil {
		return err
	}
	if err := e.Warehouse.ErasePerson(ctx, x); err != nil {
		return err
	}
	rows, err := Rejected(ctx, e.Warehouse, e.Rules, x.Members)
	if err != nil {
		return err
	}
	return e.Warehouse.EraseRejected(ctx, x.Command, rows)
}

// check looks again. Rows that came meanwhile are deleted by the next attempt.
func (e *Eraser) check(ctx context.Context, r *commands.Run, x *warehouse.Erasure) error {
	if err := r.Step(ctx, "look again"); err != nil {
		return err
	}
	counts, err := Counts(ctx, e.Warehouse, e.Rules, x)
	if err != nil {
		return err
	}
	for table, n := range counts {
		if n > 0 {
			return fmt.Errorf("%d rows of the person are in %s still", n, table)
		}
	}
	return r.Unhold(ctx)
}

// Counts is how many rows of a person each table of ClickHouse has; tables without any are not in it.
func Counts(ctx context.Context, w interface {
	CountPerson(ctx context.Context, e *warehouse.Erasure) ([]warehouse.TableCount, error)
	rejectedReader
}, rules *identity.Rules, x *warehouse.Erasure,
) (map[string]int, error) {
	counts, err := w.CountPerson(ctx, x)
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, c := range counts {
		if c.Rows > 0 {
			out[c.Table] = int(c.Rows) //nolint:gosec // rows of one person
		}
	}
	rows, err := Rejected(ctx, w, rules, x.Members)
	if err != nil {
		return nil, err
	}
	if len(rows) > 0 {
		out[warehouse.TableRejected] = len(rows)
	}
	return out, nil
}

type rejectedReader interface {
	EachRejected(ctx context.Context, f func(r *warehouse.RejectedRow) error) error
}

// Rejected finds the rejected events that name one of the identifiers, by the same rules as events: in the body, valid or
// not, or in the record's key. What is no JSON object, such as a request that was cut or is packed, names nobody that can be
// found.
func Rejected(ctx context.Context, w rejectedReader, rules *identity.Rules, members []uuid.UUID) ([]warehouse.Origin, error) {
	in := make(map[identity.Node]bool, len(members))
	for _, m := range members {
		in[identity.Node(m)] = true
	}
	var found []warehouse.Origin
	err := w.EachRejected(ctx, func(r *warehouse.RejectedRow) error {
		if names(rules, r, in) {
			found = append(found, r.Origin)
		}
		return nil
	})
	return found, err
}

func names(rules *identity.Rules, r *warehouse.RejectedRow, in map[identity.Node]bool) bool {
	if n, err := identity.ParseNode(r.Key); err == nil && in[n] {
		return true // of a stage, whose keys are profile ids
	}
	for _, typ := range []string{event.AnonymousID, event.UserID, event.Email, event.Phone} { // what a sender's key may be
		if id, why := rules.IdentifyIn(r.Brand, event.Identifier{Type: typ, Value: r.Key}); why == "" && in[id.Node] {
			return true
		}
	}
	e := event.Glimpse([]byte(r.Body), event.Filling{})
	e.Brand, e.Trusted = r.Brand, true
	ids, _ := rules.Extract(e)
	if slices.ContainsFunc(ids, func(id identity.Identifier) bool { return in[id.Node] }) {
		return true
	}
	return slices.ContainsFunc(e.Identifiers(), func(id event.Identifier) bool {
		known, why := rules.IdentifyIn(r.Brand, id)
		return why == "" && in[known.Node]
	})
}

func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode a record: %w", err)
	}
	return b, nil
}

func textsOf(nodes []identity.Node) []string {
	out := make([]string, len(nodes))
	for i, n := range nodes {
		out[i] = n.String()
	}
	return out
}

var _ Ledger = (*undo.Ledger)(nil)
