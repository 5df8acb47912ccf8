package stitcher

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/suppression"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/undo"
)

// refill makes the register of erased people again of what identities.linked says of the commands that were carried out.
type refill struct {
	ended  []endedCommand
	parted map[string][]identity.Node // by command: all that an erasure forgot, also what came while it ran
}

// endedCommand is an erasure, or its end, that was carried out.
type endedCommand struct {
	seq  int64 // commands have one order
	id   string
	kind identity.CommandKind
	on   []identity.Node
}

// see takes one record of identities.linked. What is not of an executor's making is passed.
func (f *refill) see(r *keyed.Record) {
	switch r.Kind {
	case topic.KindSplit:
		var p identity.Parted
		if json.Unmarshal(r.Value, &p) != nil {
			return
		}
		if n, err := identity.ParseNode(p.Node); err == nil {
			if f.parted == nil {
				f.parted = map[string][]identity.Node{}
			}
			f.parted[p.Command] = append(f.parted[p.Command], n)
		}
	case topic.KindCommand:
		var c struct {
			identity.Command
			Outcome undo.State `json:"outcome"`
		}
		if json.Unmarshal(r.Value, &c) != nil || c.Outcome != undo.Done || c.Kind != identity.CommandErase && c.Kind != identity.CommandUnsuppress {
			return
		}
		e := endedCommand{seq: r.Position.Seq, id: c.ID, kind: c.Kind}
		for _, text := range c.Members {
			if n, err := identity.ParseNode(text); err == nil {
				e.on = append(e.on, n)
			}
		}
		f.ended = append(f.ended, e)
	}
}

// apply writes the register, in the order of the commands.
func (f *refill) apply(ctx context.Context, register *suppression.Register) error {
	slices.SortFunc(f.ended, func(a, b endedCommand) int { return int(a.seq - b.seq) })
	for _, e := range f.ended {
		if e.kind == identity.CommandUnsuppress {
			if err := register.Remove(ctx, e.on); err != nil {
				return err
			}
			continue
		}
		if err := register.Add(ctx, append(e.on, f.parted[e.id]...)); err != nil {
			return err
		}
	}
	return nil
}
