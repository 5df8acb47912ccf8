package simulate

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/stream"
)

const (
	// mostPerCall are the events that a source sends in one call, at most.
	mostPerCall = 3
	// retryLeast and retryMost bound the pause before the same call is made once more, as SDKs' first pauses.
	retryLeast = 100 * time.Millisecond
	retryMost  = 1500 * time.Millisecond
	// weary is of how many calls one is given up after a few tries, as when a browser tab is closed.
	weary = 12
)

// knocks says whether events come through the real doors, not straight into the collector's topic.
func (w *world) knocks() bool { return w.shape.has(collect) }

// arrive brings all events to the doors: each device and the shop's server with an SDK of its own, and the till
// into the inbox.
func (w *world) arrive(es []*sentEvent) {
	queues := map[string][]*sentEvent{}
	for _, e := range es {
		who := e.key
		switch {
		case e.inlet:
			who = inbox
		case e.source == "shop":
			who = "shop"
		}
		queues[who] = append(queues[who], e)
	}
	for _, who := range sortedKeys(queues) {
		if who == inbox {
			w.running.Go(func() { w.fill(queues[who]) })
			continue
		}
		w.running.Go(func() { w.sdk(who, queues[who]) })
	}
}

// inbox is the till's way: its records go into Kafka, and the collector's inlet fetches them.
const inbox = "the inbox"

// fill writes the till's records, each at its time.
func (w *world) fill(es []*sentEvent) {
	for _, e := range es {
		if !w.rest(e.at - w.now()) {
			return
		}
		part := w.upTo(partitions, "inbox", e.id)
		w.tried([]*sentEvent{e})
		// The till names its records as it likes: nothing of Weft's is needed but a body.
		if w.doors.stream.Produce(w.ctx, w.topics.EventsInbox(), part, []stream.Record{{Key: []byte(e.key), Value: []byte(e.body)}}) != nil {
			return
		}
		w.acknowledge(e)
		w.settled(e)
	}
}

// sdk sends a queue of events in order, as Segment's SDKs do: a few in a call, and the call again until the door
// has taken it. Some calls are given up.
func (w *world) sdk(who string, es []*sentEvent) {
	for n := 0; len(es) > 0; n++ {
		if !w.rest(es[0].at - w.now()) {
			return
		}
		most, k := 1+w.upTo(mostPerCall, who, strconv.Itoa(n), "events"), 1
		for k < min(most, len(es)) && es[k].at <= w.now() {
			k++
		}
		if !w.deliver(who, n, es[:k]) {
			return
		}
		es = es[k:]
	}
}

// deliver makes one call until the door has taken it; false: the schedule has ended.
func (w *world) deliver(who string, n int, es []*sentEvent) bool {
	words := []string{who, strconv.Itoa(n)}
	patience := 0
	if w.upTo(weary, append(words, "weary")...) == 0 {
		patience = 1 + w.upTo(3, append(words, "tries")...)
	}
	for try := 1; ; try++ {
		again := append(words, strconv.Itoa(try))
		p := w.process(collect, w.upTo(max(1, w.shape.owners), append(again, "which door")...))
		raw := w.request(es)
		w.tried(es)
		a, err := w.knock(p, fmt.Sprintf("call %s %d", who, n), raw, func(a answered) { w.hear(a, es) })
		if err == nil && a.status == http.StatusOK || try == patience {
			w.settled(es...)
			return true
		}
		if !w.rest(w.between(retryLeast, retryMost, append(again, "pause")...)) {
			return false
		}
	}
}

// request is a call as SDKs make it: one event alone, or a batch.
func (w *world) request(es []*sentEvent) []byte {
	path, body := "/v1/track", es[0].body
	switch {
	case len(es) == 1 && es[0].name == "" && !es[0].poison:
		path = "/v1/identify"
	case len(es) > 1:
		bodies := make([]string, len(es))
		for i, e := range es {
			bodies[i] = e.body
		}
		path, body = "/v1/batch", fmt.Sprintf(`{"sentAt":%q,"batch":[%s]}`, time.Now().UTC().Format(time.RFC3339Nano), strings.Join(bodies, ","))
	}
	r, err := http.NewRequest(http.MethodPost, "http://door"+path, strings.NewReader(body)) //nolint:noctx // only written down
	if err != nil {
		panic(err) // the address is a constant
	}
	for _, s := range sources {
		if s.Name == es[0].source {
			r.SetBasicAuth(s.WriteKey, "")
		}
	}
	r.Header.Set("Content-Type", "application/json")
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		panic(err) // into memory
	}
	return b.Bytes()
}

// tried notes that a call with these events leaves.
func (w *world) tried(es []*sentEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range es {
		w.tries[e.id]++
	}
}

// heardOf is how many calls with an event have left.
func (w *world) heardOf(id string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tries[id]
}

// hear takes what the door said: 200, or that the source shall come again, and when (P1).
func (w *world) hear(a answered, es []*sentEvent) {
	switch {
	case a.status == http.StatusOK:
		w.acknowledge(es...)
	case (a.status == http.StatusServiceUnavailable || a.status == http.StatusTooManyRequests) && a.retryAfter != "":
		w.mu.Lock()
		w.heard["answers: come again"]++
		w.mu.Unlock()
	default:
		w.violate("the door answers %d (Retry-After %q) to %s", a.status, a.retryAfter, es[0].id)
	}
}

// acknowledge notes that a door has taken responsibility for events.
func (w *world) acknowledge(es ...*sentEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range es {
		if _, ok := w.acked[e.id]; !ok {
			w.acked[e.id] = time.Now()
			w.note("acknowledged " + e.id + " " + e.name + " of " + e.key)
		}
	}
}

// settled notes that nobody will send these events any more.
func (w *world) settled(es ...*sentEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range es {
		e.settled = true
		if _, ok := w.acked[e.id]; !ok {
			w.heard["events given up"]++
		}
	}
}
