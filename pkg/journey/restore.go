package journey

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/weft-cdp/weft/pkg/commerce"
)

// Published is what activations.requested or activations.settled says of the end of one armed instance: enough
// to bring the end back where a state is folded again from events alone.
type Published struct {
	Receipt, Journey, Brand, Profile, Cart string

	ArmedAt int64
	// At is when it was decided, by the decider's clock.
	At int64
	// Decided says that it ended because it was due, and so bars the cart. Otherwise an event ended it, which
	// the fold meets again.
	Decided bool
	Sent    bool   // a message was made,
	Known   bool   // of lines that are known in full,
	Lines   uint64 // with this fingerprint
}

// PublishedRequest reads a record of activations.requested.
func PublishedRequest(b []byte) (Published, error) {
	r, err := DecodeRequest(b)
	if err != nil {
		return Published{}, err
	}
	p := Published{
		Receipt: r.Receipt, Journey: r.Journey, Brand: r.Brand, Profile: r.Profile, Cart: r.Cart.ID,
		ArmedAt: r.ArmedAt, At: r.DecidedAt, Decided: true, Sent: true,
	}
	if p.Known = r.Cart.Lines != nil && len(r.Cart.Lines) < MaxLines; p.Known {
		p.Lines = hashLines(r.Cart.Lines)
	}
	return p, nil
}

// PublishedReceipt reads a record of activations.settled; forMessage says that it is the end of a message, of
// which the request tells more.
func PublishedReceipt(b []byte) (p Published, forMessage bool, err error) {
	var r Receipt
	if err := json.Unmarshal(b, &r); err != nil {
		return Published{}, false, fmt.Errorf("read receipt: %w", err)
	}
	p = Published{
		Receipt: r.Receipt, Journey: r.Journey, Brand: r.Brand, Profile: r.Profile, Cart: r.Cart.ID,
		ArmedAt: r.ArmedAt, At: r.SettledAt,
	}
	if r.Message != "" {
		// Nothing happened between the time it was due and the decision: that would have put it off.
		p.Decided, p.Sent, p.At = true, true, r.DueAt
		return p, true, nil
	}
	switch r.Reason {
	case ReasonPurchased, ReasonMerged, ReasonTooManyCarts:
	default:
		p.Decided = true
		p.Sent = r.Reason == ReasonAlreadySent // as the decision on it noted
	}
	return p, false, nil
}

// Restore brings the end of an instance back that was published. over says which receipts have been
// published: whatever else runs for the cart of a decision never lived, since an instance of a journey runs
// for a cart alone. Doing it again changes nothing. It says whether s has changed.
func (s *State) Restore(p *Published, over func(receipt string) bool) bool {
	b := s.brand(p.Brand)
	d := Decision{Journey: p.Journey, Cart: p.Cart, At: p.At, Sent: p.Sent}
	k, found := b.findDecided(p.Journey, p.Cart)
	known := found && b.Decided[k].At >= p.At
	i, runs := b.findRunning(p.Journey, p.Cart)
	// What was armed behind the decision came later, and was met earlier: a live event, while others are told again.
	ends := runs && (b.Running[i].Receipt == p.Receipt ||
		p.Decided && !known && b.Running[i].ArmedAt <= p.At && !over(b.Running[i].Receipt))
	if ends {
		b.Running = slices.Delete(b.Running, i, i+1)
	}
	if !p.Decided || known {
		return ends
	}
	if d.Lines = p.Lines; d.Sent && !p.Known {
		lines, last := b.lines(p.Cart)
		// A cart that was touched later is not the one of which it was said that it had been written about.
		if d.Lines = hashLines(lines); last > p.At && found && b.Decided[k].Sent {
			d.Lines = b.Decided[k].Lines
		}
	}
	b.decide(d, b.openCarts())
	return true
}

// lines are those of an open cart, and when it was touched last.
func (b *Brand) lines(cart string) ([]commerce.Line, int64) {
	open := b.Carts.Open()
	for i := range open {
		if open[i].ID == cart {
			return open[i].Cart().Lines, open[i].LastActivity
		}
	}
	return nil, 0
}

// Drop ends running instances without a word, and says whether there were any. which is told when they are due.
func (s *State) Drop(which func(in *Instance, due int64) bool) bool {
	dropped := false
	for _, b := range s.Brands {
		b.Running = slices.DeleteFunc(b.Running, func(in Instance) bool {
			d := which(&in, b.dueAt(&in))
			dropped = dropped || d
			return d
		})
	}
	return dropped
}
