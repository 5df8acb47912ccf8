package demo

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Channel is a door that actions come through.
type Channel string

// The doors. Web and App are untrusted HTTP sources, Shop is the shop system's own, Till is a Kafka topic.
const (
	Web  Channel = "web"
	App  Channel = "app"
	Shop Channel = "shop"
	Till Channel = "till"
)

// Device is one browser or app installation.
type Device struct {
	ID      string // anonymousId
	Channel Channel
	Context map[string]any
}

// Action is one thing a visitor does.
type Action struct {
	At      time.Duration // since the beginning of its part
	Channel Channel
	Device  string // anonymousId; "" at the till and in the shop system
	ID      string // message id; "" at the till, where Weft makes one
	Body    map[string]any
	Resend  bool          // the sender sends it twice, as after an answer that got lost
	Link    bool          // instead of an event: the unsubscribe link of the last mail is used
	Broken  bool          // nobody can make an event of it: it must be rejected
	Ago     time.Duration // how long ago it happened, by what it says itself

	// What it means, for the truth.
	Identifiers []string // type:value of all it names, normalised
	Activity    bool     // it shows the visitor shopping
	Cart        string   // the cart it changes
	Order       string   // the order it reports
	Cents       int64    // of the order
	Viewed      bool     // a product was looked at
}

// Part is a run of actions. The first begins with the visitor's story, others when a mail arrives.
type Part struct {
	AfterMail bool
	Actions   []Action
}

// Ending is how a cart's receipt reads.
type Ending struct{ Outcome, Reason string }

// The endings that the shop's carts have.
var (
	Sent         = Ending{"delivered", "sent"}
	Purchased    = Ending{"suppressed", "purchased"}
	Emptied      = Ending{"suppressed", "emptied"}
	NoConsent    = Ending{"suppressed", "no_consent"}
	Denied       = Ending{"suppressed", "consent_denied"}
	Unsubscribed = Ending{"suppressed", "unsubscribed"}
	OnList       = Ending{"suppressed", "suppression_list"}
	Historical   = Ending{"suppressed", "historical"}
	Merged       = Ending{"suppressed", "merged"}
	ChannelOff   = Ending{"suppressed", "channel_off"}
)

// Cart is a cart and the truth about it.
type Cart struct {
	ID    string
	Want  Ending
	Lines []Line // what is left in it at its end, if a mail is to name it
	// Recovered says that it is bought after its mail.
	Recovered bool
	// Elsewhere says that it is bought on another device or at the till shortly before it is due.
	Elsewhere bool
	// Overtaken says that an order of the visitor comes by another way than the cart. If that news overtook the
	// cart's own there is no receipt, because nothing was open any more.
	Overtaken bool
	// MayMerge says that it may have been two carts of the same name until the visitor was known, so that a
	// second receipt may say so.
	MayMerge bool
}

// Visitor is one person and what they do.
type Visitor struct {
	N      int
	Story  string
	UserID string // "" if never given
	Email  string // lower case; "" if never given
	First  string
	Start  time.Duration // since the shop opened
	Parts  []Part
	Carts  []Cart
	OnList bool // the address is on the operator's suppression list
}

// Plan says what shop to make.
type Plan struct {
	Seed     uint64
	Visitors int
	Run      string        // stands before every id, so that several runs into one Weft stay apart
	Delay    time.Duration // of the journey
	Over     time.Duration // how long visitors keep coming in
	// Mailbox says that mails can be seen, so that some visitors answer theirs.
	Mailbox bool
	// List says that a suppression list of ours is in use.
	List bool
}

// Margin is how long before a reminder is due some carts are bought elsewhere.
const Margin = time.Second

// Generate tells every visitor's story. The same plan gives the same shop.
func Generate(p Plan) []Visitor {
	r := rand.New(rand.NewPCG(p.Seed, 0x77656674)) //nolint:gosec // a simulation, not a secret
	mix := stories(p)
	sum := 0
	for _, s := range mix {
		sum += s.weight
	}
	shelf := catalog()
	out := make([]Visitor, 0, p.Visitors)
	for n := range p.Visitors {
		pick := r.IntN(sum)
		i := 0
		for pick >= mix[i].weight {
			pick -= mix[i].weight
			i++
		}
		if n < len(mix) {
			i = n // each story at least once
		}
		out = append(out, tell(p, r, shelf, n, mix[i]))
	}
	return out
}

// tell writes one story.
func tell(p Plan, r *rand.Rand, shelf []Product, n int, s story) Visitor {
	first, last := pickOne(r, firstNames()), pickOne(r, lastNames())
	t := &teller{
		Rand: r, plan: p, shelf: shelf,
		v: &Visitor{
			N: n, Story: s.name, First: first,
			Start: time.Duration(r.Int64N(int64(p.Over))).Truncate(time.Millisecond),
			Parts: []Part{{}},
		},
		user:  fmt.Sprintf("%s-u%d", p.Run, n),
		email: fmt.Sprintf("%s.%s.%d@%s.example.com", lower(first), last, n, p.Run),
		carts: map[string][]Line{},
	}
	s.tell(t)
	t.resendSome()
	return *t.v
}

func pickOne[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// SuppressionList is the addresses that the operator never wants to write to.
func SuppressionList(visitors []Visitor) []string {
	var out []string
	for _, v := range visitors {
		if v.OnList {
			out = append(out, v.Email)
		}
	}
	slices.Sort(out)
	return out
}
