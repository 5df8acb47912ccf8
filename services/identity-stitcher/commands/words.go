package commands

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/undo"
)

func compare(a, b string) int { return cmp.Compare(a, b) }

func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode a record: %w", err)
	}
	return b, nil
}

// link makes one person of two identifiers, whatever caps say.
func (x *Executor) link(ctx context.Context, r *Run) error {
	c := &r.Command
	if err := r.Step(ctx, "link"); err != nil {
		return err
	}
	q := identity.Request{
		Cause:    identity.Cause{Source: fmt.Sprintf("%s:%d:%d", topic.StageCommands, r.Partition, r.Offset), MessageID: c.ID, Rule: identity.RuleOperator, Time: c.At.UTC()},
		Source:   topic.StageCommands,
		Trusted:  true,
		Operator: true,
	}
	for _, e := range c.Identifiers {
		n, err := identity.ParseNode(e.Node)
		if err != nil {
			return Refuse("identifiers: %w", err)
		}
		q.Identifiers = append(q.Identifiers, identity.Identifier{Type: e.Type, Value: e.Value, Node: n})
	}
	if q.Identifiers[1].Node.Before(q.Identifiers[0].Node) {
		q.Identifiers[0], q.Identifiers[1] = q.Identifiers[1], q.Identifiers[0]
	}
	results, err := x.deps.Graph.Resolve(ctx, []identity.Request{q})
	if err != nil {
		return err
	}
	res := results[0]
	if len(res.SetAside) > 0 {
		a := res.SetAside[0]
		return Refuse("%s %q may not be linked: %s", a.Identifier.Type, a.Identifier.Value, reasonText(a.Reason))
	}
	var outs []Output
	var losers []identity.Node
	for i := range res.Merges {
		pair, err := r.merge(&res.Merges[i], FirstIndex+i)
		if err != nil {
			return err
		}
		outs = append(outs, pair...)
		n, err := identity.ParseNode(res.Merges[i].Loser)
		if err != nil {
			return err
		}
		losers = append(losers, n)
	}
	if err := r.Publish(ctx, outs); err != nil {
		return err
	}
	r.Count("merges", len(losers))
	if len(losers) == 0 {
		return nil
	}
	return x.deps.Graph.Confirm(ctx, losers)
}

// reasonText says what to do about what is in the way of a link.
func reasonText(reason identity.Reason) string {
	switch reason {
	case identity.ReasonCut:
		return "a split or reject says that the two are not one person: release that command first"
	case identity.ReasonLimit:
		return "the person would have more values of a type than its limit in the rules file"
	}
	return string(reason)
}

// reject says that two identifiers must not be one person.
func (x *Executor) reject(ctx context.Context, r *Run) error {
	a, b, err := pair(&r.Command)
	if err != nil {
		return err
	}
	if err := r.Step(ctx, "reject"); err != nil {
		return err
	}
	if err := x.deps.Graph.Cut(ctx, a, b); errors.Is(err, identity.ErrOnePerson) {
		return Refuse("identifiers: %w", err)
	} else if err != nil {
		return err
	}
	r.status.Parts = []string{a.String(), b.String()}
	return x.say(ctx, r, a, func(s *identity.NodeState) {
		cut := [2]string{min(a.String(), b.String()), max(a.String(), b.String())}
		for _, c := range s.Cuts {
			if c == cut {
				return
			}
		}
		s.Cuts = append(s.Cuts, cut)
	})
}

// pair is the two identifiers of a command, in order.
func pair(c *identity.Command) (a, b identity.Node, err error) {
	nodes, err := identity.ParseNodes([]string{c.Identifiers[0].Node, c.Identifiers[1].Node})
	if err != nil {
		return a, b, Refuse("identifiers: %w", err)
	}
	if nodes[1].Before(nodes[0]) {
		nodes[0], nodes[1] = nodes[1], nodes[0]
	}
	return nodes[0], nodes[1], nil
}

// block has an identifier count for nobody, or count again.
func (x *Executor) block(ctx context.Context, r *Run) error {
	n, err := identity.ParseNode(r.Command.Identifiers[0].Node)
	if err != nil {
		return Refuse("identifiers[0].node: %w", err)
	}
	if err := r.Step(ctx, string(r.Command.Kind)); err != nil {
		return err
	}
	blocked := r.Command.Kind == identity.CommandBlock
	if err := x.deps.Graph.SetBlocked(ctx, n, blocked); err != nil {
		return err
	}
	return x.say(ctx, r, n, func(s *identity.NodeState) { s.Blocked = blocked })
}

// say publishes what is said of a node by all commands up to this one.
func (x *Executor) say(ctx context.Context, r *Run, n identity.Node, change func(s *identity.NodeState)) error {
	s, err := x.ledger.Node(ctx, n.String())
	if err != nil {
		return err
	}
	s.Node, s.Command = n.String(), r.Command.ID
	change(&s)
	value, err := encode(s)
	if err != nil {
		return err
	}
	out := Output{Topic: x.deps.Topics.IdentitiesLinked(), Index: FirstIndex, Key: s.Key(), Value: value, Headers: said(topic.KindState)}
	if err := r.Publish(ctx, []Output{out}); err != nil {
		return err
	}
	return x.ledger.PutNode(ctx, s)
}

// release takes back that the parts of a split, or the two of a reject, must not be one person.
func (x *Executor) release(ctx context.Context, r *Run) error {
	if err := r.Step(ctx, "release"); err != nil {
		return err
	}
	s, ok, err := x.ledger.Get(ctx, r.Command.Split)
	switch {
	case err != nil:
		return err
	case !ok || s.State != undo.Done || s.Kind != identity.CommandSplit && s.Kind != identity.CommandReject:
		return Refuse("split: %s is no split or reject that was carried out", r.Command.Split)
	}
	nodes, err := identity.ParseNodes(s.Parts)
	if err != nil {
		return err
	}
	generations, err := x.deps.Graph.Release(ctx, nodes)
	if err != nil {
		return err
	}
	r.Count("parts", len(nodes))
	if s.Kind == identity.CommandReject {
		return x.say(ctx, r, nodes[0], func(st *identity.NodeState) {
			cut := [2]string{s.Parts[0], s.Parts[1]}
			var left [][2]string
			for _, c := range st.Cuts {
				if c != cut {
					left = append(left, c)
				}
			}
			st.Cuts, st.Generation = left, generations[0]
		})
	}
	outs := make([]Output, len(nodes))
	for i := range nodes {
		part := identity.Part{Command: r.Command.Split, Node: s.Parts[i], Generation: generations[i], Cuts: [][2]string{}, Time: s.At}
		value, err := encode(part)
		if err != nil {
			return err
		}
		outs[i] = Output{Topic: x.deps.Topics.IdentitiesLinked(), Index: FirstIndex + i, Key: part.Key(), Value: value, Headers: said(topic.KindPart)}
	}
	return r.Publish(ctx, outs)
}
