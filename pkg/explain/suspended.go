package explain

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/weft-cdp/weft/pkg/warehouse"
)

// What has become of a suspended link. The texts are a closed set.
const (
	StateOpen     = "open"     // nobody has said anything of it
	StateReleased = "released" // an operator has had them linked
	StateRejected = "rejected" // an operator has said that they are not one person
	StateJoined   = "joined"   // they are one person all the same: by other links, or when the pair came again
)

// Suspended is links that a cap of the governor has stopped, the last first.
type Suspended struct {
	Links []SuspendedLink `json:"suspended"`
}

// SuspendedLink is one of them.
type SuspendedLink struct {
	ID        string        `json:"id"` // both nodes, with a plus sign between them
	Between   [2]Identifier `json:"between"`
	Cap       string        `json:"cap"`
	Source    string        `json:"source"` // of the event; empty if an older version stopped it
	Brand     string        `json:"brand"`
	MessageID string        `json:"messageId"`
	FirstSeen time.Time     `json:"firstSeen"`
	LastSeen  time.Time     `json:"lastSeen"`
	Records   uint64        `json:"records"` // how often it was published
	State     string        `json:"state"`   // open, released, rejected, joined
	Actor     string        `json:"actor,omitempty"`
}

// Suspended lists suspended links, those released or rejected since as well.
func (e *Explainer) Suspended(ctx context.Context, f warehouse.SuspendedFilter) (*Suspended, error) {
	rows, err := e.history.Suspended(ctx, f)
	if err != nil {
		return nil, err
	}
	out := &Suspended{Links: make([]SuspendedLink, len(rows))}
	for i, r := range rows {
		l := SuspendedLink{
			ID: r.A.String() + "+" + r.B.String(), Cap: r.Cap, Source: r.Source, Brand: r.Brand, MessageID: r.MessageID,
			Between:   [2]Identifier{{ID: r.A.String(), Type: r.AType, Value: r.AValue}, {ID: r.B.String(), Type: r.BType, Value: r.BValue}},
			FirstSeen: r.First.UTC(), LastSeen: r.Last.UTC(), Records: r.Records, State: StateOpen, Actor: r.Actor,
		}
		switch {
		case r.Answer == "link":
			l.State = StateReleased
		case r.Answer == "reject":
			l.State = StateRejected
		case r.Joined:
			l.State = StateJoined
		}
		out.Links[i] = l
	}
	return out, nil
}

// Print writes suspended links for a terminal.
func (s *Suspended) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "LAST\tSTATE\tCAP\tSOURCE\tBETWEEN\tAND\tID")
	for i := range s.Links {
		l := &s.Links[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", moment(&l.LastSeen), l.State, Plain(l.Cap), Plain(l.Source),
			Plain(l.Between[0].String()), Plain(l.Between[1].String()), l.ID)
	}
	return w.Flush()
}
