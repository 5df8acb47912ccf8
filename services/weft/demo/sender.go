package demo

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/weft-cdp/weft/services/weft/replay/door"
)

const (
	// writers is how many requests are on their way at once: more than the tabs of a shop need.
	writers = 16
	// maxBacklog is how many actions may wait to be acknowledged before the clock at the door stops, by which new
	// visitors come in: on a machine that is too slow for the shop it takes longer, instead of events coming in after
	// their reminder is due.
	maxBacklog = 100
	// maxTogether is how many events a device sends in one request.
	maxTogether = 20
	// queuesEach is more than the queues that one visitor needs: two devices, a link, the till, the shop system.
	queuesEach = 6
	// mailPatience is how long beyond the delay a visitor waits for a mail.
	mailPatience = 3 * time.Minute
)

// Doors are the public ways in.
type Doors struct {
	// HTTP has a client for each of Web, App and Shop.
	HTTP map[Channel]*door.Client
	// Till writes a sale to the till's topic and returns when Kafka has it.
	Till func(ctx context.Context, key string, record []byte) error
}

// Sender plays a shop. Make one per shop.
type Sender struct {
	doors  Doors
	ledger *Ledger
	plan   Plan
	client *http.Client

	mu      sync.Mutex
	agenda  agenda
	pending int           // actions done and not acknowledged
	outside []*Visitor    // those who have not come in yet, by Start
	clock   time.Duration // the time at the door, by which they come
	looked  time.Time     // when it was last moved on
	queues  map[string]*queue
	waiting map[string]wait // by address: the part that a mail begins
	links   map[string]string
	wake    chan struct{}
	open    int // actions of visitors who are in the shop, not acknowledged
}

// wait is a part that begins with a mail.
type wait struct {
	visitor *Visitor
	part    int
	until   time.Time
}

// NewSender plays through doors and notes what happens in ledger.
func NewSender(plan Plan, doors Doors, ledger *Ledger) *Sender {
	return &Sender{
		doors: doors, ledger: ledger, plan: plan, client: &http.Client{Timeout: 30 * time.Second},
		queues: map[string]*queue{}, waiting: map[string]wait{}, links: map[string]string{}, wake: make(chan struct{}, 1),
	}
}

// item is an action with the moment it is to be done.
type item struct {
	due     time.Time
	visitor *Visitor
	action  *Action
}

// agenda is a heap of items by due time.
type agenda []item

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].due.Before(a[j].due) }
func (a agenda) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }

// Push implements heap.Interface.
func (a *agenda) Push(x any) {
	if it, ok := x.(item); ok { // nothing else is ever pushed
		*a = append(*a, it)
	}
}

// Pop implements heap.Interface.
func (a *agenda) Pop() any {
	old := *a
	x := old[len(old)-1]
	*a = old[:len(old)-1]
	return x
}

// queue is what one device has to send. Its events go in order, one request at a time.
type queue struct {
	channel Channel
	mu      sync.Mutex
	pending []sending
	busy    bool
}

type sending struct {
	visitor *Visitor
	action  *Action
	at      time.Time
}

// MailCame tells the sender of a mail, so that a visitor who waits for it goes on.
func (s *Sender) MailCame(m Mail) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links[m.To] = m.Unsubscribe
	w, ok := s.waiting[m.To]
	if !ok {
		return
	}
	delete(s.waiting, m.To)
	s.begin(w.visitor, w.part, time.Now())
}

// begin puts a part's actions on the agenda, and the wait for the next part behind it. mu is held.
func (s *Sender) begin(v *Visitor, part int, at time.Time) {
	for i := range v.Parts[part].Actions {
		a := &v.Parts[part].Actions[i]
		heap.Push(&s.agenda, item{due: at.Add(a.At), visitor: v, action: a})
		s.open++
	}
	if part+1 < len(v.Parts) {
		last := v.Parts[part].Actions[len(v.Parts[part].Actions)-1].At
		s.waiting[v.Email] = wait{visitor: v, part: part + 1, until: at.Add(last + s.plan.Delay + mailPatience)}
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run plays the shop to its end: every action done and acknowledged. It returns an error only if ctx ends or a
// door is unusable.
func (s *Sender) Run(ctx context.Context, visitors []Visitor) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.mu.Lock()
	for i := range visitors {
		s.outside = append(s.outside, &visitors[i])
	}
	slices.SortFunc(s.outside, func(a, b *Visitor) int { return cmp.Compare(a.Start, b.Start) })
	s.looked = time.Now()
	s.mu.Unlock()
	jobs := make(chan *queue, len(visitors)*queuesEach+1)
	var workers sync.WaitGroup
	for range writers {
		workers.Go(func() {
			for q := range jobs {
				if ctx.Err() != nil {
					continue
				}
				if err := s.drain(ctx, q); err != nil {
					cancel(err)
				}
			}
		})
	}
	s.play(ctx, jobs)
	close(jobs)
	workers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

const (
	// idlePoll is the pause between looks while nothing is due.
	idlePoll = 50 * time.Millisecond
	// minLook keeps looks apart, and so lets a device gather what it does in between.
	minLook = 5 * time.Millisecond
	// maxLook is how far the clock at the door goes in one look: when this process itself was held up, those who
	// should have come meanwhile do not come all at once.
	maxLook = 2 * idlePoll
)

// play hands out what is due until nothing is left.
func (s *Sender) play(ctx context.Context, jobs chan<- *queue) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.wake:
		}
		next, over := s.due(time.Now(), jobs)
		if over {
			return
		}
		timer.Reset(next)
	}
}

// due does what is due now and says when to look again.
func (s *Sender) due(now time.Time, jobs chan<- *queue) (next time.Duration, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending < maxBacklog {
		s.clock += min(now.Sub(s.looked), maxLook)
	}
	s.looked = now
	for len(s.outside) > 0 && s.outside[0].Start <= s.clock {
		s.begin(s.outside[0], 0, now)
		s.outside = s.outside[1:]
	}
	for len(s.agenda) > 0 && !s.agenda[0].due.After(now) {
		s.enqueue(heap.Pop(&s.agenda).(item), now, jobs) //nolint:errcheck // it holds nothing else
	}
	for address, w := range s.waiting {
		if now.After(w.until) {
			delete(s.waiting, address)
			s.ledger.miss(w.visitor.N)
		}
	}
	if len(s.agenda) > 0 {
		return min(max(s.agenda[0].due.Sub(now), minLook), idlePoll), false
	}
	return idlePoll, len(s.outside) == 0 && len(s.waiting) == 0 && s.open == 0
}

// enqueue does an action: from here on it waits for its device to send it. mu is held.
func (s *Sender) enqueue(it item, now time.Time, jobs chan<- *queue) {
	a := it.action
	s.pending++
	at := now.Truncate(time.Millisecond)
	s.ledger.did(a, at)
	name := string(a.Channel) + "/" + a.Device
	if a.Device == "" || a.Link { // tills and the shop system have no order between visitors
		name = fmt.Sprintf("%s/%d", name, it.visitor.N)
	}
	q := s.queues[name]
	if q == nil {
		q = &queue{channel: a.Channel}
		s.queues[name] = q
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pending = append(q.pending, sending{it.visitor, a, at})
	if !q.busy {
		q.busy = true
		jobs <- q // has room for every queue there is
	}
}

// drain sends a queue until it is empty.
func (s *Sender) drain(ctx context.Context, q *queue) error {
	for {
		q.mu.Lock()
		n := min(len(q.pending), maxTogether)
		if n == 0 {
			q.busy = false
			q.mu.Unlock()
			return nil
		}
		together := q.pending[:n:n]
		q.pending = q.pending[n:]
		q.mu.Unlock()
		if err := s.send(ctx, q.channel, together); err != nil {
			return err
		}
		s.mu.Lock()
		s.open -= n
		s.pending -= n
		s.mu.Unlock()
	}
}

func (s *Sender) send(ctx context.Context, ch Channel, together []sending) error {
	if ch == Till {
		return s.sendTill(ctx, together)
	}
	var items, again [][]byte
	var actions, twice []*Action
	for _, x := range together {
		if x.action.Link {
			if err := s.unsubscribe(ctx, x); err != nil {
				return err
			}
			continue
		}
		body, err := x.action.encode(x.at)
		if err != nil {
			return err
		}
		items, actions = append(items, body), append(actions, x.action)
		if x.action.Resend {
			again, twice = append(again, body), append(twice, x.action)
		}
	}
	if err := s.batch(ctx, ch, items, actions, false); err != nil {
		return err
	}
	return s.batch(ctx, ch, again, twice, true)
}

func (s *Sender) batch(ctx context.Context, ch Channel, items [][]byte, actions []*Action, again bool) error {
	if len(items) == 0 {
		return nil
	}
	res, err := s.doors.HTTP[ch].Batch(ctx, items)
	if err != nil {
		return fmt.Errorf("send %d events as %s: %w", len(items), ch, err)
	}
	for _, r := range res.Refused {
		if actions[r.Index].Broken { // it is named in the answer, and kept on events.rejected
			continue
		}
		return fmt.Errorf("send %d events as %s: the door refuses %s: %s", len(items), ch, items[r.Index], r.Reason)
	}
	s.ledger.acked(actions, time.Now(), again, res.Unanswered)
	return nil
}

func (s *Sender) sendTill(ctx context.Context, together []sending) error {
	for _, x := range together {
		record, err := x.action.encode(x.at)
		if err != nil {
			return err
		}
		if err := s.doors.Till(ctx, x.action.ID, record); err != nil {
			return fmt.Errorf("send a sale of the till: %w", err)
		}
		s.ledger.acked([]*Action{x.action}, time.Now(), false, 0)
	}
	return nil
}

var errNoLink = errors.New("the mail has no one-click unsubscribe link")

// unsubscribe does what a mail program's button does (RFC 8058).
func (s *Sender) unsubscribe(ctx context.Context, x sending) error {
	s.mu.Lock()
	link := s.links[x.visitor.Email]
	s.mu.Unlock()
	if link == "" {
		return fmt.Errorf("unsubscribe %s: %w", x.visitor.Email, errNoLink)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, link, bytes.NewReader([]byte("List-Unsubscribe=One-Click")))
	if err != nil {
		return fmt.Errorf("unsubscribe: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("unsubscribe: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxMail)) // only the status counts
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("unsubscribe: the link answers %s", resp.Status)
	}
	s.ledger.acked([]*Action{x.action}, time.Now(), false, 0)
	return nil
}
