package activator

import (
	"context"
	"fmt"
	"time"

	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/suppression"
	"github.com/weft-cdp/weft/pkg/topic"
)

// people is what is known of the persons to write to.
type people struct {
	state      func(ctx context.Context, profile string) (s *journey.State, split bool, err error) // nil: nothing is known
	suppressed func(address string) bool                                                           // never to be written to
	erased     *suppression.Erased                                                                 // nor these
}

// decided is people as the decide stage knows them.
func decided(st *store.Client, topics topic.Set, rules *rulebook) people {
	return people{
		erased: rules.erased,
		state: func(ctx context.Context, profile string) (*journey.State, bool, error) {
			f, err := keyed.ReadState[journey.State](ctx, st, topics, topic.StageDecide, journey.StateVersion, profile)
			return f.State, f.Parted, err
		},
		suppressed: func(address string) bool { return rules.decider().Suppressed(address) },
	}
}

// overtaken is the end of a message that is not to be sent any more: too old, to somebody who was erased or split, or by what is known of the
// person now; without outcome if it stands.
func (d *delivery) overtaken(ctx context.Context, req *journey.Request, uncertain bool) (end, error) {
	if age := d.now().Sub(time.UnixMilli(req.DecidedAt)); age > d.patience.age {
		return givenUp(uncertain, journey.ReasonExpired, "decided "+age.Truncate(time.Second).String()+" ago"), nil
	}
	if err := d.people.erased.Ensure(ctx); err != nil {
		return end{}, err // it cannot be told whether it is for one of them
	}
	if e := d.people.erased; e.HasProfile(req.Profile) || e.HasAddress(req.Brand, req.To) {
		return orUnknown(uncertain, end{Outcome: journey.Suppressed, Reason: journey.ReasonErased}), nil
	}
	s, split, err := d.people.state(ctx, req.Profile)
	if err != nil {
		return end{}, fmt.Errorf("look at %s again: %w", req.Profile, err)
	}
	if split { // its cart and its address may be those of two people
		return orUnknown(uncertain, end{Outcome: journey.Suppressed, Reason: journey.ReasonSplit}), nil
	}
	switch reason := journey.Withdrawn(s, req, d.people.suppressed); reason {
	case "":
		return end{}, nil
	case journey.ReasonNoConsent:
		// The state moves to a person found to be the same, and a no may move with it. Should it never
		// arrive, the message grows too old.
		return end{}, fmt.Errorf("look at %s again: the consent that the decision was made with is not there", req.Profile)
	default:
		return orUnknown(uncertain, end{Outcome: journey.Suppressed, Reason: reason}), nil
	}
}
