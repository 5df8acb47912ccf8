package rejected

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/services/weft/feed"
)

// Replay sends items back in.
type Replay struct {
	Client *stream.Client
	Set    topic.Set
	Repair *Repair
	// DryRun says what would be sent and sends nothing.
	DryRun bool
	// Again sends what was replayed before once more. It is still taken once.
	Again bool
	// Historical marks everything as history: it counts, and triggers no message.
	Historical bool
	// Rate is how many events a second are sent; 0: as fast as it goes.
	Rate int
	// Reader reads again what a webhook of a source brought; its error says that the source is not configured (so).
	Reader func(source string) (Reader, error)
	Out    io.Writer // one line per item; with DryRun its body, too
}

// Reader is a webhook's. *collector.HookReader is one.
type Reader interface {
	// Events are those of an item with the header topic.HeaderDelivery. The error is why there are none.
	Events(header string, item []byte, received time.Time) ([][]byte, error)
}

// Report says what became of the items.
type Report struct {
	Sent   int // events on events.inbox, or that would be
	Before int // items that were replayed before, left alone
	Taken  int // items whose event was taken meanwhile, left alone
	Faulty int // items that can not be replayed, or not with this repair
}

// Run replays the items, in order, and says what it did with each.
func (r *Replay) Run(ctx context.Context, items []Item) (Report, error) {
	var report Report
	taken, err := r.taken(ctx, items)
	if err != nil {
		return report, err
	}
	pace := time.Duration(0)
	if r.Rate > 0 {
		pace = time.Second / time.Duration(r.Rate)
	}
	for n := range items {
		i := &items[n]
		switch {
		case i.Replayed != "" && !r.Again:
			report.Before++
			r.say(i, "was replayed before, as "+i.Replayed)
			continue
		case taken[id{i.Meta.Source, i.Meta.MessageID}]:
			report.Taken++
			r.say(i, "the source has sent it again, and it was taken")
			continue
		}
		recs, err := r.records(i)
		if err != nil {
			report.Faulty++
			r.say(i, "not replayed: "+err.Error())
			continue
		}
		for n, rec := range recs {
			if n < len(recs)-1 { // only the last says that all are there: a replay may end in between
				mark := &rec.Headers[len(rec.Headers)-1]
				mark.Value = append(mark.Value, part+strconv.Itoa(n)...)
			}
			if r.DryRun {
				r.say(i, "would send "+shown(string(rec.Value), maxShownSent))
				continue
			}
			if err := r.Client.Produce(ctx, r.Set.EventsInbox(), topic.Partition(rec.Key, r.Set.Partitions), []stream.Record{rec}); err != nil {
				return report, fmt.Errorf("send %s: %w", i.Position(), err)
			}
			select {
			case <-ctx.Done():
				return report, context.Cause(ctx)
			case <-time.After(pace):
			}
		}
		report.Sent += len(recs)
		if !r.DryRun {
			r.say(i, "replayed")
		}
	}
	return report, nil
}

// part stands behind the position in the mark of a copy that more copies of the same item follow. What is sent once
// more of an item that was left half sent are duplicates.
const part = "/"

// maxItems is how many items a request may have that was rejected as a whole: above what fits into the first bytes
// that are kept of one.
const maxItems = 10_000

// maxShownSent is how much of an event a dry run shows.
const maxShownSent = 2000

func (r *Replay) say(i *Item, what string) { fmt.Fprintf(r.Out, "%s: %s\n", i.Position(), what) }

// id is by what the stage behind the collector knows an event again.
type id struct{ source, messageID string }

// taken is which of the items stand on events.collected by now. It is asked for records of topics only: a repair that
// changes whose event it is would bring a copy where the stage behind does not know the id of what the mapping made.
func (r *Replay) taken(ctx context.Context, items []Item) (map[id]bool, error) {
	wanted := map[id]bool{}
	var oldest time.Time
	for n := range items {
		if i := &items[n]; i.inlet {
			wanted[id{i.Meta.Source, i.Meta.MessageID}] = true
			if oldest.IsZero() || i.At.Before(oldest) {
				oldest = i.At
			}
		}
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	found := map[id]bool{}
	err := feed.Read(ctx, r.Client, r.Set.EventsCollected(), feed.Options{Since: from(oldest)}, func(rec *stream.Record) error {
		source, _ := topic.Get(rec.Headers, topic.HeaderSource)
		messageID, _ := topic.Get(rec.Headers, topic.HeaderMessageID)
		if x := (id{source, messageID}); wanted[x] {
			found[x] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for what was taken meanwhile on %s: %w", r.Set.EventsCollected(), err)
	}
	return found, nil
}

// records are the copies of an item that go back in: one, or those of a request that was rejected as a whole.
func (r *Replay) records(i *Item) ([]stream.Record, error) {
	if err := i.final(); err != nil {
		return nil, err
	}
	body, err := r.Repair.apply(i.Body)
	switch {
	case err != nil:
		return nil, i.shortened(err)
	case i.mapped(r.Set):
		return []stream.Record{r.record(i, i.Meta, body)}, nil // what its event is, its mapping says
	case i.delivered:
		return r.read(i, body)
	}
	recs, err := r.split(i, body)
	return recs, i.shortened(err)
}

// split makes the copies of an event, or of those of a request.
func (r *Replay) split(i *Item, body []byte) ([]stream.Record, error) {
	most := maxItems
	if typeOf(i.Origin) != "" || i.hooked() {
		most = 0 // a single call
	}
	request, err := event.Split(body, most)
	if err != nil {
		return nil, err
	}
	fill := event.Filling{Type: typeOf(i.Origin), Context: request.Context, Integrations: request.Integrations}
	if !request.Batch {
		rec, err := r.event(i, i.Meta, body, fill, i.Meta.MessageID)
		return []stream.Record{rec}, err
	}
	var recs []stream.Record
	for n, item := range request.Items {
		m := i.Meta
		m.MessageID = "" // that of the request: an item has its own, else one made of the request's
		if m.SentAt.IsZero() {
			m.SentAt = request.SentAt
		}
		rec, err := r.event(i, m, item, fill, i.Meta.MessageID+"."+strconv.Itoa(n))
		if err != nil {
			return nil, fmt.Errorf("batch[%d]: %w", n, err)
		}
		recs = append(recs, rec)
	}
	return recs, nil
}

// event is the copy of one event, which the collector would take; messageID is for one without.
func (r *Replay) event(i *Item, m event.Meta, body []byte, fill event.Filling, messageID string) (stream.Record, error) {
	fill.MessageID = func() string { return messageID }
	if !i.inlet || m.MessageID == i.Origin {
		m.MessageID = "" // where the first time's was made here, that of the repaired body goes before
	}
	e, err := event.Complete(body, fill, m)
	if err == nil {
		err = e.Validate()
	}
	if err != nil {
		return stream.Record{}, err
	}
	m.MessageID = e.MessageID
	return r.record(i, m, e.Body), nil
}

func (r *Replay) record(i *Item, m event.Meta, body []byte) stream.Record {
	m.Historical = m.Historical || r.Historical
	m.Flags = "" // found anew
	var place []topic.Header
	if i.Service != topic.StageCollector {
		place = append(place, topic.Header{Key: topic.HeaderService, Value: []byte(i.Service)}) // the door was done with it
	}
	if i.mapped(r.Set) && m.MessageID == i.Origin {
		m.MessageID, place = "", append(place, topic.Header{Key: topic.HeaderOrigin, Value: []byte(i.Origin)}) // for a mapping that gives none
	}
	headers := append(append(topic.MetaHeaders(m), place...), topic.Header{Key: topic.HeaderReplayOf, Value: []byte(i.Position())})
	return stream.Record{Key: []byte(i.Position()), Value: bytes.Clone(body), Headers: headers}
}

// hookPath is where the collector takes webhooks, with the name of their source behind it.
const hookPath = "/v1/hooks/"

// hooked says whether an item came in a webhook.
func (i *Item) hooked() bool { return strings.HasPrefix(i.Origin, hookPath) }

// mapped says whether an item is a record of a topic other than the inbox: what it is, its source's mapping says.
func (i *Item) mapped(set topic.Set) bool {
	text, _ := topic.Get(i.Headers, topic.HeaderPosition)
	p, err := topic.ParsePosition(text)
	return err == nil && i.inlet && p.Stage != topic.StageCollector+"/"+set.EventsInbox()
}
