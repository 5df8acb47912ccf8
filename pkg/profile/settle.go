package profile

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The changes of a membership.
const (
	Entered = "entered"
	Left    = "left"
)

// The reasons of a change.
const (
	BecauseCondition = "condition" // the expression turned true or false
	BecauseRemoved   = "removed"   // the audience is no longer in the file
	BecauseMerged    = "merged"    // the profile id was merged into another, which has its own memberships
	BecauseGone      = "gone"      // the profile id is of nobody any more: it was split, and its parts have their own, or erased
)

// AudienceChange is the value of a record on audiences.changed.
type AudienceChange struct {
	Audience string  `json:"audience"`
	Profile  string  `json:"profile"`
	Change   string  `json:"change"` // Entered or Left
	At       Time    `json:"at"`     // by the clock of the profile builder
	Reason   string  `json:"reason"` // one of those above
	Into     string  `json:"into,omitempty"`
	Because  Because `json:"because,omitzero"`
}

// Because is why a condition turned.
type Because struct {
	Expression string `json:"expression"`
	// Values are what the expression read, by the text it reads it with; what was absent is left out.
	Values map[string]any `json:"values,omitempty"`
}

// IsZero makes an absent reason absent in JSON.
func (b Because) IsZero() bool { return b.Expression == "" }

// ErrAbsent marks an evaluation that read something the profile does not have, such as the revenue in a
// currency it never paid in. It means "not a member" and is rarely a mistake.
var ErrAbsent = errors.New("the profile has no such value")

// Settle brings the state within MaxState, finds the memberships anew, keeps them in the state, and returns
// what changed, by audience. An evaluation that fails means "not a member"; the errors name the audience.
func (s *State) Settle(id string, as *Audiences, now time.Time) ([]AudienceChange, []error) {
	if s.Events == 0 {
		return nil, nil
	}
	s.bound()
	v := &variables{s: s}
	var changes []AudienceChange
	var errs []error
	members := make([]string, 0, len(as.List))
	for _, a := range as.List {
		in, err := a.holds(v)
		if err != nil {
			errs = append(errs, err)
		}
		was := slices.Contains(s.Audiences, a.Name)
		if in {
			members = append(members, a.Name)
		}
		if in == was {
			continue
		}
		ch := AudienceChange{Audience: a.Name, Profile: id, Change: Left, At: Time{now}, Reason: BecauseCondition, Because: a.because(v)}
		if in {
			ch.Change = Entered
		}
		changes = append(changes, ch)
	}
	for _, name := range s.Audiences {
		if !slices.ContainsFunc(as.List, func(a *Audience) bool { return a.Name == name }) {
			changes = append(changes, AudienceChange{Audience: name, Profile: id, Change: Left, At: Time{now}, Reason: BecauseRemoved})
		}
	}
	slices.Sort(members)
	s.Audiences = members
	slices.SortFunc(changes, func(a, b AudienceChange) int { return strings.Compare(a.Audience, b.Audience) })
	return changes, errs
}

// Leave returns the ends of all memberships of a profile that was merged into another, or, with none, is gone. The state
// is not changed.
func (s *State) Leave(id, into string, now time.Time) []AudienceChange {
	reason := BecauseMerged
	if into == "" {
		reason = BecauseGone
	}
	changes := make([]AudienceChange, 0, len(s.Audiences))
	for _, name := range s.Audiences {
		changes = append(changes, AudienceChange{Audience: name, Profile: id, Change: Left, At: Time{now}, Reason: reason, Into: into})
	}
	return changes
}

// holds evaluates the expression.
func (a *Audience) holds(v *variables) (bool, error) {
	out, _, err := a.program.Eval(v)
	if err != nil {
		if t := err.Error(); strings.Contains(t, "no such key") || strings.Contains(t, "no such attribute") {
			return false, fmt.Errorf("audience %s: %w: %w", a.Name, ErrAbsent, err)
		}
		return false, fmt.Errorf("audience %s: %w", a.Name, err)
	}
	in, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("audience %s: evaluates to %s, not to true or false", a.Name, out.Type())
	}
	return in, nil
}

func (a *Audience) because(v *variables) Because {
	b := Because{Expression: a.When}
	for _, r := range a.reads {
		if x, ok := v.exact(r); ok {
			if b.Values == nil {
				b.Values = map[string]any{}
			}
			b.Values[r.text] = x
		}
	}
	return b
}
