package writer

import (
	"bytes"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"
	"github.com/valyala/fastjson"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

// eventRows reads events.identified: events, and merges.
type eventRows struct {
	events     adder[warehouse.Event]
	identities adder[warehouse.Identity]
	redirects  adder[warehouse.Redirect]

	// Parsers are kept, with their memory: an event's own would be garbage after each row.
	properties, context fastjson.Parser
}

func (t *eventRows) read(r *stream.Record, m event.Meta) error {
	kind, _ := topic.Get(r.Headers, topic.HeaderKind)
	switch topic.Kind(kind) {
	case "", topic.KindEvent:
		return t.readEvent(r, m)
	case topic.KindMerge:
		return t.readMerge(r, m)
	}
	return &poison{reasonKind, fmt.Errorf("header %s: %.40q is not known to this version", topic.HeaderKind, kind)}
}

func (t *eventRows) readMerge(r *stream.Record, m event.Meta) error {
	merge, err := identity.ParseMerge(r.Value)
	if err != nil {
		return &poison{reasonMerge, err}
	}
	if len(merge.Evidence) > math.MaxUint16 {
		return &poison{reasonMerge, fmt.Errorf("%d pieces of evidence", len(merge.Evidence))}
	}
	// ParseMerge has checked every id.
	id := func(s string) uuid.UUID { return uuid.MustParse(s) }
	row := warehouse.Identity{
		Origin: originOf(r), Brand: m.Brand, Loser: id(merge.Loser), Winner: id(merge.Winner),
		Members: uint32(len(merge.Members)), Version: uint64(merge.Version), //nolint:gosec // ParseMerge: positive
		Rule: string(merge.Cause.Rule), Cause: merge.Cause.Source, MessageID: merge.Cause.MessageID,
		Time: inRange(merge.Cause.Time), ReceivedAt: inRange(m.ReceivedAt),
	}
	if m.ReceivedAt.IsZero() {
		row.ReceivedAt = row.Time
	}
	for i, e := range merge.Evidence {
		row.N, row.Type, row.Value, row.Node = uint16(i), e.Type, e.Value, id(e.Node)
		t.identities.Add(&row)
	}
	if len(merge.Evidence) == 0 {
		t.identities.Add(&row)
	}
	for _, member := range merge.Members {
		t.redirects.Add(&warehouse.Redirect{Origin: row.Origin, Profile: id(member), Current: row.Winner, Version: row.Version})
	}
	return nil
}

func (t *eventRows) readEvent(r *stream.Record, m event.Meta) error {
	profile, err := profileID(r)
	if err != nil {
		return err
	}
	e, err := event.Decode(r.Value, m)
	if err != nil {
		return &poison{event.Reason(err, reasonRecord), err}
	}
	row := warehouse.Event{
		Origin: originOf(r), Brand: m.Brand, Source: m.Source, Type: string(e.Type), Name: e.Name, Profile: profile,
		UserID: e.UserID, AnonymousID: e.AnonymousID, PreviousID: e.PreviousID, GroupID: e.GroupID, MessageID: e.MessageID,
		Time: inRange(e.Time), TimeClamped: e.TimeClamped, SentAt: inRange(e.SentAt), ReceivedAt: inRange(m.ReceivedAt),
		Trusted: m.Trusted, Historical: m.Historical,
		Properties: e.RawProperties(), Traits: e.RawTraits(), Context: e.RawContext(),
	}
	if m.ReceivedAt.IsZero() { // nobody said; the month of the event is as good as any
		row.ReceivedAt = row.Time
	}
	if !row.Time.Equal(e.Time) {
		row.Faults = append(row.Faults, "timestamp")
	}
	row.OriginalTimestamp = originalTimestamp(e)
	// Decode has scanned both more strictly than this parser reads.
	if p, err := t.properties.ParseBytes(e.RawProperties()); err == nil && e.RawProperties() != nil {
		readProperties(&row, e.Type, p)
	}
	if c, err := t.context.ParseBytes(e.RawContext()); err == nil && e.RawContext() != nil {
		readContext(&row, c)
	}
	row.Address = address(e)
	t.events.Add(&row)
	return nil
}

// originalTimestamp is the sender's own clock, where the event's time is not that.
func originalTimestamp(e *event.Event) time.Time {
	if !e.TimeClamped && !bytes.Contains(e.Body, []byte(`"originalTimestamp"`)) {
		return time.Time{}
	}
	v, err := fastjson.ParseBytes(e.Body)
	if err != nil {
		return time.Time{}
	}
	for _, name := range []string{"originalTimestamp", "timestamp"} {
		if t, ok := event.ParseTime(event.Text(v.Get(name))); ok {
			return inRange(t)
		}
	}
	return time.Time{}
}

// readProperties fills the typed columns of the e-commerce spec. What fits none is named in Faults; it
// stands in properties as it came.
func readProperties(row *warehouse.Event, t event.Type, p *fastjson.Value) {
	row.OrderID, row.CheckoutID, row.CartID = event.Text(p.Get("order_id")), event.Text(p.Get("checkout_id")), event.Text(p.Get("cart_id"))
	row.ProductID, row.Category = event.Text(p.Get("product_id")), event.Text(p.Get("category"))
	row.Currency = currency(event.Text(p.Get("currency")))
	row.Price = money(p, "price", &row.Faults)
	row.Quantity = money(p, "quantity", &row.Faults)
	row.Value = money(p, "value", &row.Faults)
	row.Revenue = money(p, "revenue", &row.Faults)
	row.Total = money(p, "total", &row.Faults)
	if t == event.Page || t == event.Screen {
		row.URL, row.Path, row.Referrer, row.Title = event.Text(p.Get("url")), event.Text(p.Get("path")), event.Text(p.Get("referrer")), event.Text(p.Get("title"))
	}
}

// readContext fills the columns of page, campaign, device and library.
func readContext(row *warehouse.Event, c *fastjson.Value) {
	if page := c.Get("page"); page != nil {
		orElse(&row.URL, page.Get("url"))
		orElse(&row.Path, page.Get("path"))
		orElse(&row.Referrer, page.Get("referrer"))
		orElse(&row.Title, page.Get("title"))
	}
	if campaign := c.Get("campaign"); campaign != nil {
		orElse(&row.UTMSource, campaign.Get("source"))
		orElse(&row.UTMMedium, campaign.Get("medium"))
		orElse(&row.UTMCampaign, campaign.Get("name"))
		orElse(&row.UTMTerm, campaign.Get("term"))
		orElse(&row.UTMContent, campaign.Get("content"))
	}
	campaignOfURL(row)
	if row.DeviceType = deviceName(event.Text(c.Get("device", "type"))); row.DeviceType == "" {
		row.DeviceType = deviceOf(event.Text(c.Get("userAgent")))
	}
	row.OS, row.App, row.Locale = event.Text(c.Get("os", "name")), event.Text(c.Get("app", "name")), event.Text(c.Get("locale"))
	row.IP = event.Text(c.Get("ip"))
	if row.Library = event.Text(c.Get("library", "name")); row.Library != "" {
		if v := event.Text(c.Get("library", "version")); v != "" {
			row.Library += "/" + v
		}
	}
}

// address is the person's address, if the event names one.
func address(e *event.Event) []byte {
	if !bytes.Contains(e.RawTraits(), []byte("address")) && !bytes.Contains(e.RawContext(), []byte("address")) {
		return nil
	}
	a := e.Traits().Get("address")
	if a == nil || a.Type() == fastjson.TypeNull {
		return nil
	}
	return a.MarshalTo(nil)
}

// orElse fills what is still empty.
func orElse(to *string, v *fastjson.Value) {
	if *to == "" {
		*to = event.Text(v)
	}
}
