package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Rule is what made a link.
type Rule string

// The rules of this version.
const (
	RuleSameEvent Rule = "same_event" // one event carried both identifiers
	RuleAlias     Rule = "alias"      // an alias call said that both user ids are one person
	RuleOperator  Rule = "operator"   // an operator said that both are one person
)

// timeLayout is RFC 3339 with exactly three digits of a second, in UTC.
const timeLayout = "2006-01-02T15:04:05.000Z"

// Cause is the record that made a link. Source and MessageID together name it.
type Cause struct {
	Source    string    // the record's source position, else topic:partition:offset of events.collected
	MessageID string    // the event's message id
	Rule      Rule      // what in the event made the link
	Time      time.Time // when the event was received, UTC, to the millisecond
}

// causeJSON is the text form of Cause.
type causeJSON struct {
	Source    string `json:"source"`
	MessageID string `json:"messageId"`
	Rule      Rule   `json:"rule"`
	Time      string `json:"time"`
}

// MarshalJSON writes the form of the merge record.
func (c Cause) MarshalJSON() ([]byte, error) {
	return json.Marshal(causeJSON{c.Source, c.MessageID, c.Rule, c.Time.UTC().Format(timeLayout)})
}

// UnmarshalJSON reads what MarshalJSON wrote; any RFC 3339 time will do.
func (c *Cause) UnmarshalJSON(b []byte) error {
	var j causeJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	t, err := time.Parse(time.RFC3339Nano, j.Time)
	if err != nil {
		return fmt.Errorf("time: %w", err)
	}
	*c = Cause{j.Source, j.MessageID, j.Rule, t.UTC().Truncate(time.Millisecond)}
	return nil
}

// Evidence is one of the two identifiers that a link joined, as normalised.
type Evidence struct {
	Type  string `json:"type"`
	Value string `json:"value"`
	Node  string `json:"node"`
}

// Merge is one accepted link: the profile Loser is from now on part of Winner. It is the value of records
// of kind merge on events.identified (key: Loser) and of records on identities.linked. The same merge may
// be published more than once, with a Version that differs; Loser, Winner, Members and Cause never do.
// Profile ids and nodes are UUID text in lower case; Winner is always before Loser in their order.
type Merge struct {
	Loser   string   `json:"loser"`
	Winner  string   `json:"winner"`
	Members []string `json:"members"` // every node of the loser's component, the loser included, in order
	// Version grows along every chain of redirects of one node: it is the generation of the winner's component, times 2^32,
	// and its size, as read behind the link. Within a generation components only grow, and the winner's own final size is below
	// that of whatever it is merged into; a split gives its parts a higher generation, and a join takes over the higher one. So
	// for one member the merge with the highest version is the latest.
	Version int64 `json:"version"`
	// Days are, for each of Members, the day on which it was first linked, counted from 1 = 2020-01-01 in UTC; 0: before
	// days were kept. WinnerDay is that of Winner's own node or, if it is a part, of the one of Evidence that stands in it. Both are absent from what earlier versions published.
	Days      []uint16   `json:"days,omitempty"`
	WinnerDay uint16     `json:"winnerDay,omitempty"`
	Cause     Cause      `json:"cause"`
	Evidence  []Evidence `json:"evidence"`
}

// GenerationShift is how far up the generation stands in a version; below it is the size of a person.
const GenerationShift = 32

// maxGeneration is the highest that a version and the node of a part hold (see Rules.Part): one is taken by each split of
// people who were split before, and by each release.
const maxGeneration = 1<<24 - 1

// version is that of a merge into a component.
func version(generation uint64, size int) int64 {
	return int64(generation)<<GenerationShift | int64(size) //nolint:gosec // below maxGeneration, and no component has 2^32 members
}

// Generation is that of the winner's component.
func (m *Merge) Generation() uint64 { return uint64(m.Version) >> GenerationShift } //nolint:gosec // never negative

// Encode writes the record's value.
func (m Merge) Encode() ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode merge of %s: %w", m.Loser, err)
	}
	return b, nil
}

// ParseMerge reads the value of a merge or link record. Fields it does not know are left alone; anything
// that Merge promises and that does not hold is an error.
func ParseMerge(b []byte) (Merge, error) {
	var m Merge
	if err := json.Unmarshal(b, &m); err != nil {
		return Merge{}, fmt.Errorf("parse merge: %w", err)
	}
	if err := m.check(); err != nil {
		return Merge{}, fmt.Errorf("parse merge of %q: %w", m.Loser, err)
	}
	return m, nil
}

// check says what is wrong with a merge.
func (m *Merge) check() error {
	loser, err := ParseNode(m.Loser)
	if err != nil {
		return fmt.Errorf("loser: %w", err)
	}
	winner, err := ParseNode(m.Winner)
	if err != nil {
		return fmt.Errorf("winner: %w", err)
	}
	if !winner.Before(loser) {
		return fmt.Errorf("winner %s is not before the loser", m.Winner)
	}
	for i, s := range m.Members {
		if _, err := ParseNode(s); err != nil {
			return fmt.Errorf("members[%d]: %w", i, err)
		}
	}
	if len(m.Days) != 0 && len(m.Days) != len(m.Members) {
		return fmt.Errorf("days has %d of %d members", len(m.Days), len(m.Members))
	}
	if !slices.Contains(m.Members, m.Loser) {
		return errors.New("members do not list the loser")
	}
	if size := m.Version & (1<<GenerationShift - 1); m.Version < 0 || size <= int64(len(m.Members)) {
		return fmt.Errorf("version %d is not above the loser's %d members", m.Version, len(m.Members))
	}
	for i, e := range m.Evidence {
		if _, err := ParseNode(e.Node); err != nil {
			return fmt.Errorf("evidence[%d]: %w", i, err)
		}
	}
	return nil
}
