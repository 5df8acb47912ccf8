package demo

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/services/weft/audit"
)

const (
	// progressEvery is the pause between lines of progress.
	progressEvery = 5 * time.Second
	// factsEvery is the pause between looks while Weft finishes.
	factsEvery = time.Second
)

// Options are what a run works with. Mailbox may be nil.
type Options struct {
	Visitors  []Visitor
	Doors     Doors
	Mailbox   *Mailbox
	Log       audit.Log
	Warehouse Warehouse
	Topics    topic.Set
	// Alone says that nobody else has sent or will send anything to this Weft.
	Alone bool
	// Patience is how long Weft may take to finish once everything was sent.
	Patience time.Duration
	Out      io.Writer
	Places   Places
}

// Places is what the report invites to explore; empty ones are left out.
type Places struct {
	Door, WriteKey           string
	Profiles, AccessKey      string
	Admin                    string
	ClickHouse, ClickHouseUI string
	Database                 string
	Journeys                 string
	Logs                     string
	Kept                     bool // they stay
}

// Run is one run of a shop.
type Run struct {
	plan   Plan
	opt    Options
	ledger *Ledger
	opened time.Time
}

// NewRun prepares a run of the shop that plan made.
func NewRun(plan Plan, opt Options) *Run { return &Run{plan: plan, opt: opt, ledger: NewLedger()} }

// Play sends the whole shop, waits for Weft to finish, and prints the report. The verdict says whether all is
// as the truth has it; an error, that it could not be found out.
func (r *Run) Play(ctx context.Context) (Verdict, error) {
	r.opened = time.Now()
	s := NewSender(r.plan, r.opt.Doors, r.ledger)
	if r.opt.Mailbox != nil {
		r.opt.Mailbox.Notify(s.MailCame)
	}
	actions := 0
	for i := range r.opt.Visitors {
		r.opt.Visitors[i].eachAction(func(*Action) { actions++ })
	}
	fmt.Fprintf(r.opt.Out, "The shop is open: %d visitors come in over %s; a reminder is due %s after the last activity.\n",
		len(r.opt.Visitors), r.plan.Over, r.plan.Delay)
	stop := r.progress(ctx, actions)
	err := s.Run(ctx, r.opt.Visitors)
	stop()
	if err != nil {
		return Verdict{}, fmt.Errorf("play the shop: %w", err)
	}
	sent := time.Since(r.opened)
	fmt.Fprintf(r.opt.Out, "Everybody has gone home after %s. Waiting for the last reminders to be decided.\n", sent.Round(time.Second))
	truth, facts, verdict, err := r.settle(ctx)
	if err != nil {
		return Verdict{}, err
	}
	return verdict, r.print(truth, facts, verdict, sent)
}

// progress prints a line now and then until stop is called.
func (r *Run) progress(ctx context.Context, actions int) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			did, resent := r.ledger.counts()
			mails := 0
			if r.opt.Mailbox != nil {
				got, _ := r.opt.Mailbox.Mails()
				mails = len(got)
			}
			fmt.Fprintf(r.opt.Out, "%5ds  %6d of %d actions, %d sent twice, %d reminders received\n",
				int(time.Since(r.opened).Seconds()), did, actions, resent, mails)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// settle asks until nothing is on its way any more and everything is as it must be, or patience ends.
func (r *Run) settle(ctx context.Context) (Truth, Facts, Verdict, error) {
	truth := r.ledger.Truth(r.opt.Visitors, r.plan.Delay)
	due := r.opened
	for _, c := range truth.Carts {
		if c.Due.After(due) {
			due = c.Due
		}
	}
	deadline := time.Now().Add(r.opt.Patience)
	if due.Add(r.opt.Patience).After(deadline) {
		deadline = due.Add(r.opt.Patience)
	}
	for {
		facts, err := r.gather(ctx)
		if err != nil {
			return truth, facts, Verdict{}, err
		}
		mails, unreadable := r.mails()
		verdict := judge(facts, truth, mails, unreadable, r.opt.Alone)
		if len(facts.Lags) == 0 && verdict.OK() && time.Now().After(due) || time.Now().After(deadline) {
			if len(facts.Lags) > 0 {
				l := facts.Lags[0]
				verdict.fault("%s is still %d records behind on %s", l.Stage, l.Records, l.Topic)
			}
			return truth, facts, verdict, nil
		}
		select {
		case <-ctx.Done():
			return truth, facts, verdict, ctx.Err()
		case <-time.After(factsEvery):
		}
	}
}

// mails is nil if there is no mailbox.
func (r *Run) mails() ([]Mail, []error) {
	if r.opt.Mailbox == nil {
		return nil, nil
	}
	mails, unreadable := r.opt.Mailbox.Mails()
	if mails == nil {
		mails = []Mail{}
	}
	return mails, unreadable
}
