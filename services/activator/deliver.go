package activator

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/connector"
	"github.com/weft-cdp/weft/pkg/connector/smtp"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/topic"
)

const (
	// maxParallel is the most messages under way at once in a process: mail servers commonly refuse more
	// connections than this from one host.
	maxParallel = 8
	// markTTL is how long Redis remembers the attempts of a message: as long as Kafka keeps its request.
	markTTL = 7 * 24 * time.Hour
	// recordTimeout bounds the writing down of an attempt's end, also while shutting down: without it the
	// next owner would have to say unknown.
	recordTimeout = 5 * time.Second
)

// The keys of a message's attempts in the slot, behind its tag.
const (
	attemptKey = "attempt:"
	endKey     = "end:"
)

// patience is how long a message is tried.
type patience struct {
	channel time.Duration // while the channel as a whole cannot be reached
	message time.Duration // while only this message is put off (a grey list): the others wait behind it
	age     time.Duration // after the decision; what it said may be true no more
	first   time.Duration // pause after the first attempt; it doubles
	longest time.Duration // longest pause
}

// defaultPatience rides out a restart of a mail server. What speaks against a message is looked up before
// every attempt, but what it says of the cart was true when it was decided, so it is not kept for long.
func defaultPatience() patience {
	return patience{channel: 10 * time.Minute, message: 2 * time.Minute, age: time.Hour, first: time.Second, longest: time.Minute}
}

// delivery is the deliver stage: each request to its channel, once.
//
// What happened to a message stands in Redis, under its slot's tag: attempt N is begun by whoever makes the
// key attempt:ID:N, and its end is written to end:ID:N. An attempt that was begun and has no end was cut
// off by a crash: where the channel knows repetitions the next one is made, elsewhere the receipt says
// unknown. So whatever dies, a message goes out at most once through a channel that cannot tell.
//
// Before every attempt the person is looked at again: a message that waited for its channel is not sent to
// somebody who has bought or said no since. That reads what the decide stage has folded by then, without
// the fence: what is acknowledged in the very moment of sending comes too late, as it would for any mail.
type delivery struct {
	topics   topic.Set
	people   people
	senders  map[string]connector.Sender
	store    *store.Client
	log      *zap.Logger
	metrics  *metrics
	now      func() time.Time
	patience patience
	slots    chan struct{} // bounds attempts under way

	mu    sync.Mutex
	known map[string]known // ends of messages whose receipt is not in Kafka yet
}

// known is the end of a message as remembered in the process.
type known struct {
	end
	at time.Time
}

var _ keyed.Planner = (*delivery)(nil)

func newDelivery(topics topic.Set, p people, senders map[string]connector.Sender, deps Deps, m *metrics) *delivery {
	return &delivery{
		topics: topics, people: p, senders: senders, store: deps.Store, log: deps.Log, metrics: m, now: deps.Now,
		patience: defaultPatience(), slots: make(chan struct{}, maxParallel), known: map[string]known{},
	}
}

// end is how an attempt ended; Outcome is empty where another may follow.
type end struct {
	Outcome   string `json:"outcome,omitempty"`
	Reason    string `json:"reason,omitempty"`
	Detail    string `json:"detail,omitempty"`
	Uncertain bool   `json:"uncertain,omitempty"` // it may have been taken
}

// Plan delivers a batch, side by side. It returns when each message has its end.
func (d *delivery) Plan(ctx context.Context, slot keyed.Slot, batch []keyed.Record) (keyed.Change, error) {
	d.forgetOld()
	outs, errs := make([]keyed.Output, len(batch)), make([]error, len(batch))
	var wg sync.WaitGroup
	for i := range batch {
		wg.Go(func() { outs[i], errs[i] = d.one(ctx, slot, batch[i]) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return keyed.Change{}, err
	}
	return keyed.Change{Outputs: outs}, nil
}

// Published forgets what is in Kafka.
func (d *delivery) Published(_ context.Context, _ keyed.Slot, outs []keyed.Output) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range outs {
		if outs[i].Topic != d.topics.ActivationsSettled() {
			continue
		}
		var r journey.Receipt
		if err := json.Unmarshal(outs[i].Value, &r); err != nil {
			return fmt.Errorf("read receipt that was published: %w", err)
		}
		d.metrics.settled.WithLabelValues(r.Outcome, r.Reason).Inc()
		delete(d.known, r.Message)
	}
	return nil
}

// forgetOld drops ends that another process has published since.
func (d *delivery) forgetOld() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, k := range d.known {
		if d.now().Sub(k.at) > markTTL {
			delete(d.known, id)
		}
	}
}

// one brings a request to its receipt.
func (d *delivery) one(ctx context.Context, slot keyed.Slot, r keyed.Record) (keyed.Output, error) {
	req, err := journey.DecodeRequest(r.Value)
	if err != nil {
		d.metrics.rejected.Inc()
		return keyed.Reject(r, topic.StageDeliver, "invalid_request", err, d.topics), nil
	}
	d.mu.Lock()
	k, ok := d.known[req.ID]
	d.mu.Unlock()
	if !ok {
		if k.end, err = d.caught(ctx, slot, req, r.Value); err != nil {
			return keyed.Output{}, fmt.Errorf("deliver %s: %w", req.ID, err)
		}
		k.at = d.now()
		d.mu.Lock()
		d.known[req.ID] = k
		d.mu.Unlock()
	}
	b, err := journey.Encode(req.Settle(k.Outcome, k.Reason, k.Detail, k.at.UnixMilli()))
	if err != nil {
		return keyed.Output{}, err
	}
	return keyed.Output{Topic: d.topics.ActivationsSettled(), Key: string(r.Key), Headers: headers(req.Brand), Value: b}, nil
}

// caught is deliver; a panic of a channel ends this message only. Whether it was taken nobody can tell.
func (d *delivery) caught(ctx context.Context, slot keyed.Slot, req *journey.Request, payload []byte) (e end, err error) {
	defer func() {
		if v := recover(); v != nil {
			d.log.Error("delivery panicked", zap.String("message", req.ID), zap.String("channel", req.Channel), zap.Any("panic", v), zap.Stack("stack"))
			e, err = end{Outcome: journey.Unknown, Reason: journey.ReasonCrash}, nil
		}
	}()
	return d.deliver(ctx, slot, req, payload)
}

// deliver tries until there is an end. An error leaves the message to a later call.
func (d *delivery) deliver(ctx context.Context, slot keyed.Slot, req *journey.Request, payload []byte) (end, error) {
	sender := d.senders[req.Channel]
	if sender == nil {
		return end{Outcome: journey.Suppressed, Reason: journey.ReasonChannelOff}, nil
	}
	uncertain, began, pause := false, d.now(), d.patience.first
	for n := 1; ; n++ {
		mark := slot.Tag() + attemptKey + req.ID + ":" + strconv.Itoa(n)
		endMark := slot.Tag() + endKey + req.ID + ":" + strconv.Itoa(n)
		e, mine, sendErr, err := d.attempt(ctx, sender, req, payload, try{mark, endMark, uncertain})
		if err != nil {
			return end{}, err
		}
		if !mine {
			former, found, err := d.former(ctx, endMark)
			switch {
			case err != nil:
				return end{}, err
			case found && former.Outcome != "":
				return former, nil
			case !found && !sender.Idempotent():
				return end{Outcome: journey.Unknown, Reason: journey.ReasonCrash}, nil
			}
			uncertain = uncertain || !found || former.Uncertain
			continue
		}
		if e.Outcome != "" {
			return e, nil
		}
		uncertain = e.Uncertain
		if waited := d.now().Sub(began); waited > d.limit(sendErr) {
			return givenUp(uncertain, journey.ReasonUnavailable, sendErr.Error()), nil
		}
		if err := wait(ctx, max(pause, retryAfter(sendErr))); err != nil {
			return end{}, err
		}
		pause = min(2*pause, d.patience.longest)
	}
}

// givenUp is the end of a message that nobody tries any more.
func givenUp(uncertain bool, reason, detail string) end {
	return orUnknown(uncertain, end{Outcome: journey.Failed, Reason: reason, Detail: detail})
}

// orUnknown is the end e, unless an earlier attempt may have been taken.
func orUnknown(uncertain bool, e end) end {
	if uncertain {
		return end{Outcome: journey.Unknown, Reason: journey.ReasonNoAnswer, Detail: cmp.Or(e.Detail, "not tried again: "+e.Reason)}
	}
	return e
}

// begin takes an attempt for this call alone; false: it was begun before.
func (d *delivery) begin(ctx context.Context, mark string) (bool, error) {
	token := []byte(uuid.NewString()) // of this very call: nobody else can have written it
	ok, err := d.store.SetNX(ctx, mark, token, markTTL)
	if err == nil {
		if ok {
			return true, nil
		}
	}
	// Refused, or the answer was lost: our own earlier copy may be what stands there.
	v, getErr := d.store.Get(ctx, mark)
	if getErr != nil {
		return false, errors.Join(err, getErr)
	}
	if v == nil {
		return false, fmt.Errorf("begin attempt: %w", errors.Join(err, errors.New("the mark is not there")))
	}
	return string(v) == string(token), nil
}

// former reads the end of an attempt that somebody else began.
func (d *delivery) former(ctx context.Context, key string) (end, bool, error) {
	v, err := d.store.Get(ctx, key)
	if err != nil || v == nil {
		return end{}, false, err
	}
	var e end
	if err := json.Unmarshal(v, &e); err != nil {
		return end{}, false, fmt.Errorf("read end of attempt %s: %w", key, err)
	}
	return e, true, nil
}

// record writes an attempt's end down. If that does not work the process still knows it; only a crash on
// top of it would turn it into unknown.
func (d *delivery) record(ctx context.Context, key string, e end) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	b, err := json.Marshal(e)
	if err == nil {
		err = d.store.Set(ctx, key, b, markTTL)
	}
	if err != nil {
		d.log.Warn("end of a delivery attempt can not be written down", zap.String("key", key), zap.Error(err))
	}
}

// try is one attempt: its keys, and whether an earlier one may have been taken.
type try struct {
	mark, end string
	uncertain bool
}

// attempt hands the message over once and writes down how that ended, unless somebody has begun this attempt before;
// sendErr is that of an end without outcome. It waits for its turn before it makes the mark: a mark without an end means
// that nobody can tell, so only what is really under way may have one when the process dies. A message that is
// overtaken takes the mark too: whoever made it before may have sent it.
func (d *delivery) attempt(ctx context.Context, sender connector.Sender, req *journey.Request, payload []byte, t try) (e end, mine bool, sendErr, err error) {
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		return end{}, false, nil, ctx.Err()
	}
	over, err := d.overtaken(ctx, req, t.uncertain)
	if err != nil {
		// What was begun before has its end, whoever it was for.
		if v, getErr := d.store.Get(ctx, t.mark); getErr != nil || v == nil {
			return end{}, false, nil, errors.Join(err, getErr)
		}
		return end{}, false, nil, nil
	}
	if mine, err = d.begin(ctx, t.mark); err != nil || !mine {
		return end{}, false, nil, err
	}
	if e = over; e.Outcome == "" {
		e, sendErr = d.send(ctx, sender, req, payload)
		e.Uncertain = e.Uncertain || t.uncertain
	}
	d.record(ctx, t.end, e)
	return e, true, sendErr, nil
}

// send is the attempt itself; the error is that of an end without outcome.
func (d *delivery) send(ctx context.Context, sender connector.Sender, req *journey.Request, payload []byte) (end, error) {
	hs := map[string]string{smtp.HeaderReceipt: req.Receipt}
	for k, v := range req.Headers {
		hs[k] = v
	}
	started := d.now()
	result, err := sender.Send(ctx, connector.Message{
		ID: req.ID, DecidedAt: time.UnixMilli(req.DecidedAt).UTC(), From: req.From, ReplyTo: req.ReplyTo, To: req.To,
		Subject: req.Subject, Text: req.Text, HTML: req.HTML, Headers: hs, Payload: payload,
	})
	d.metrics.seconds.WithLabelValues(req.Channel).Observe(d.now().Sub(started).Seconds())
	if err == nil {
		d.metrics.attempts.WithLabelValues(req.Channel, classTaken).Inc()
		return end{Outcome: journey.Delivered, Reason: journey.ReasonSent, Detail: result.Detail}, nil
	}
	class := connector.ClassOf(err)
	d.metrics.attempts.WithLabelValues(req.Channel, string(class)).Inc()
	d.log.Debug("message was not taken", zap.String("message", req.ID), zap.String("class", string(class)), zap.Error(err))
	switch {
	case class == connector.Permanent:
		return end{Outcome: journey.Failed, Reason: journey.ReasonRefused, Detail: err.Error()}, nil
	case class == connector.Unknown && !sender.Idempotent():
		return end{Outcome: journey.Unknown, Reason: journey.ReasonNoAnswer, Detail: err.Error()}, nil
	}
	return end{Uncertain: class == connector.Unknown}, err
}

// limit is how long a message is tried that meets this trouble.
func (d *delivery) limit(err error) time.Duration {
	var e *connector.Error
	if errors.As(err, &e) && e.Own {
		return d.patience.message
	}
	return d.patience.channel
}

func retryAfter(err error) time.Duration {
	var e *connector.Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}

// wait pauses for about d.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d + rand.N(d/4+1)) //nolint:gosec // jitter
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
