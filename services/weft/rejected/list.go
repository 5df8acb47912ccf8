package rejected

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/services/weft/feed"
	"github.com/weft-cdp/weft/services/weft/tail"
)

// clockSlack is by how much a record's timestamp, set by a producer, may lie before the receipt of what is in it.
const clockSlack = time.Minute

// List is the items of a filter.
type List struct {
	Items  []Item // the newest of them, in order of receipt
	Counts []Count
	Total  int
}

// Count is how many items have the same reason, source and service.
type Count struct {
	Reason, Source, Service string
	Items                   int
	Newest                  time.Time
	Error                   string // of the newest
}

// Read lists the items that fit. It keeps the newest keep of them, with their bodies; 0: all. All of them are counted.
func Read(ctx context.Context, c *stream.Client, set topic.Set, f Filter, keep int) (List, error) {
	done, err := replayed(ctx, c, set, f.Since)
	if err != nil {
		return List{}, err
	}
	var l List
	counts := map[[3]string]*Count{}
	err = feed.Read(ctx, c, set.EventsRejected(), feed.Options{Since: from(f.Since)}, func(r *stream.Record) error {
		i := parse(r)
		if i.Replayed = done[i.Position()]; i.Replayed != "" && !f.Replayed || !f.fits(&i) {
			return nil
		}
		l.Total++
		key := [3]string{i.Reason, i.Meta.Source, i.Service}
		n := counts[key]
		if n == nil {
			n = &Count{Reason: i.Reason, Source: i.Meta.Source, Service: i.Service}
			counts[key] = n
		}
		n.Items++
		if !i.At.Before(n.Newest) {
			n.Newest, n.Error = i.At, i.Error
		}
		kept := parse(&stream.Clone([]stream.Record{*r})[0])
		kept.Replayed = i.Replayed
		l.Items = append(l.Items, kept)
		if keep > 0 && len(l.Items) >= 2*keep+keptAtOnce {
			l.cut(keep)
		}
		return nil
	})
	if err != nil {
		return List{}, fmt.Errorf("read %s: %w", set.EventsRejected(), err)
	}
	l.cut(keep)
	for _, n := range counts {
		l.Counts = append(l.Counts, *n)
	}
	slices.SortFunc(l.Counts, func(a, b Count) int {
		return cmp.Or(cmp.Compare(b.Items, a.Items), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Service, b.Service))
	})
	return l, nil
}

// keptAtOnce is how many items more than wanted are held, so that they are not sorted for each.
const keptAtOnce = 100

// cut leaves the newest items; 0: all.
func (l *List) cut(keep int) {
	slices.SortFunc(l.Items, func(a, b Item) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	if n := len(l.Items); keep > 0 && n > keep {
		l.Items = slices.Clone(l.Items[n-keep:])
	}
}

// from is where in the log to begin for what was received since then.
func from(since time.Time) time.Time {
	if since.IsZero() {
		return since
	}
	return since.Add(-clockSlack)
}

// replayed is which records of events.rejected have a copy on events.inbox, and where it is.
func replayed(ctx context.Context, c *stream.Client, set topic.Set, since time.Time) (map[string]string, error) {
	done := map[string]string{}
	err := feed.Read(ctx, c, set.EventsInbox(), feed.Options{Since: from(since)}, func(r *stream.Record) error {
		if of, ok := topic.Get(r.Headers, topic.HeaderReplayOf); ok {
			done[of] = Position(r.Topic, r.Partition, r.Offset)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", set.EventsInbox(), err)
	}
	return done, nil
}

const (
	// maxShownError and maxShownBody are how much of an item a list shows.
	maxShownError = 160
	maxShownBody  = 200
)

// Print writes a list for people: how many of what, then the items.
func (l *List) Print(out io.Writer) error {
	if l.Total == 0 {
		_, err := fmt.Fprintln(out, "nothing is rejected that fits")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ITEMS\tREASON\tSOURCE\tSERVICE\tNEWEST\tERROR OF THE NEWEST")
	for _, n := range l.Counts {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", n.Items, shown(n.Reason, 40), shown(n.Source, 40), shown(n.Service, 40), n.Newest.Format(time.RFC3339), shown(n.Error, maxShownError))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	for _, i := range l.Items {
		note := ""
		if i.Replayed != "" {
			note = "  replayed as " + i.Replayed
		}
		fmt.Fprintf(out, "%d:%d  %s  %s  %s%s\n", i.Partition, i.Offset, i.At.Format(time.RFC3339), shown(i.Meta.Source, 40), shown(i.Error, maxShownError), note)
		fmt.Fprintf(out, "    %s\n", shown(string(i.Body), maxShownBody))
	}
	if more := l.Total - len(l.Items); more > 0 {
		fmt.Fprintf(out, "and %d older ones (--limit shows more)\n", more)
	}
	return nil
}

// shown is a text that is safe on a terminal, cut to at most n bytes, in whole characters.
func shown(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + "..."
	}
	return tail.Safe(s)
}

// PrintJSON writes the items, one object per line. A body that is no JSON stands there as a text.
func (l *List) PrintJSON(out io.Writer) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	for _, i := range l.Items {
		var body any = string(i.Body)
		if json.Valid(i.Body) {
			body = json.RawMessage(i.Body)
		}
		err := e.Encode(map[string]any{
			"position": i.Position(), "receivedAt": i.At, "reason": i.Reason, "error": i.Error, "service": i.Service, "origin": i.Origin,
			"source": i.Meta.Source, "brand": i.Meta.Brand, "messageId": i.Meta.MessageID, "replayed": i.Replayed, "body": body,
		})
		if err != nil {
			return fmt.Errorf("print an item: %w", err)
		}
	}
	return nil
}

// Show writes one item whole: its position, headers and body.
func (i *Item) Show(out io.Writer) error {
	fmt.Fprintln(out, i.Position())
	values := map[string]string{}
	for _, h := range i.Headers {
		values[h.Key] = string(h.Value)
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(out, "%s: %s\n", tail.Safe(key), tail.Safe(values[key]))
	}
	text := string(i.Body)
	var pretty bytes.Buffer
	if json.Indent(&pretty, i.Body, "", "  ") == nil { // keeps digits and order
		text = pretty.String()
	}
	lines := strings.Split(text, "\n")
	for n := range lines {
		lines[n] = tail.Safe(lines[n])
	}
	_, err := fmt.Fprintf(out, "\n%s\n", strings.Join(lines, "\n"))
	return err
}

// FindAll returns the items at positions, and whether they were replayed.
func FindAll(ctx context.Context, c *stream.Client, set topic.Set, positions []string) ([]Item, error) {
	done, err := replayed(ctx, c, set, time.Time{})
	if err != nil {
		return nil, err
	}
	var items []Item
	for _, p := range positions {
		i, err := Find(ctx, c, set, p)
		if err != nil {
			return nil, err
		}
		i.Replayed = done[i.Position()]
		items = append(items, i)
	}
	return items, nil
}

// Find returns the item at a position.
func Find(ctx context.Context, c *stream.Client, set topic.Set, position string) (Item, error) {
	partition, offset, err := ParsePosition(position, set.EventsRejected())
	if err != nil {
		return Item{}, err
	}
	r, err := feed.One(ctx, c, set.EventsRejected(), partition, offset)
	if err != nil {
		return Item{}, err
	}
	return parse(&r), nil
}
