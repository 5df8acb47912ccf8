package writer

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

// eventRows reads events.identified: events, merges, and what splits tell again.
type eventRows struct {
	events     adder[warehouse.Event]
	identities adder[warehouse.Identity]
	redirects  adder[warehouse.Redirect]
	moves      adder[warehouse.Move]
	parts      adder[warehouse.EventPart]
	messages   adder[warehouse.MessagePart]

	// What a row is made with, to be used again for the next: anything else would be garbage after each.
	reader  event.Reader
	nested  event.Object
	row     warehouse.Event
	library []byte
	devices map[string]string // by user agent
}

func (t *eventRows) read(r *stream.Record, m event.Meta) error {
	kind, _ := topic.View(r.Headers, topic.HeaderKind)
	switch topic.Kind(kind) {
	case "", topic.KindEvent:
		if command, again := topic.View(r.Headers, topic.HeaderRefold); again {
			return t.readToldAgain(r, m, command)
		}
		return t.readEvent(r, m)
	case topic.KindMerge:
		return t.readMerge(r, m)
	case topic.KindSplit:
		return t.readParted(r, m)
	case topic.KindDecision:
		return t.readDecision(r)
	case topic.KindErase:
		// Nothing is left to say of it: who carries the erasure out deletes the rows.
		if _, err := parseParted(r.Value); err != nil {
			return &poison{reasonSplit, err}
		}
		return nil
	case topic.KindRefolded:
		return t.readRefolded(r)
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
	redirect := warehouse.Redirect{Origin: row.Origin, Current: row.Winner, Version: row.Version}
	// Known when it was published, which is not before its event was received, whatever the clocks say.
	move := warehouse.Move{Origin: row.Origin, Person: row.Winner, Version: row.Version, ValidFrom: row.Time, KnownFrom: row.Time}
	if known := inRange(r.Time); known.After(row.Time) {
		move.KnownFrom = known
	}
	for _, member := range merge.Members {
		redirect.Profile = id(member)
		move.Node = redirect.Profile
		t.redirects.Add(&redirect)
		t.moves.Add(&move)
	}
	return nil
}

func (t *eventRows) readEvent(r *stream.Record, m event.Meta) error {
	profile, err := profileID(r)
	if err != nil {
		return err
	}
	e, err := t.reader.Decode(r.Value, m)
	if err != nil {
		return &poison{event.Reason(err, reasonRecord), err}
	}
	row := &t.row
	*row = warehouse.Event{
		Origin: originOf(r), Brand: m.Brand, Source: m.Source, Type: string(e.Type), Name: e.Name, Profile: profile,
		UserID: e.UserID, AnonymousID: e.AnonymousID, PreviousID: e.PreviousID, GroupID: e.GroupID, MessageID: e.MessageID,
		Time: inRange(e.Time), TimeClamped: e.TimeClamped, SentAt: inRange(e.SentAt), ReceivedAt: inRange(m.ReceivedAt),
		OriginalTimestamp: inRange(e.OwnTime()), Trusted: m.Trusted, Historical: m.Historical, Faults: row.Faults[:0], Flags: m.AppendFlags(row.Flags[:0]),
		SetAside:   setAside(row.SetAside[:0], r.Headers),
		Properties: e.RawProperties(), Traits: e.RawTraits(), Context: e.RawContext(),
	}
	if m.ReceivedAt.IsZero() { // nobody said; the month of the event is as good as any
		row.ReceivedAt = row.Time
	}
	if !row.Time.Equal(e.Time) {
		row.Faults = append(row.Faults, "timestamp")
	}
	t.readProperties(e)
	t.readContext()
	t.readAddress(e)
	t.events.Add(row)
	return nil
}

// setAside adds to dst what the stitcher says that it has set aside; the texts alias the headers.
func setAside(dst []string, hs []topic.Header) []string {
	text, ok := topic.View(hs, topic.HeaderSetAside)
	if !ok || text == "" {
		return dst
	}
	for pair := range strings.SplitSeq(text, ",") {
		dst = append(dst, pair)
	}
	return dst
}

// readProperties fills the typed columns of the e-commerce spec. What fits none is named in Faults; it
// stands in properties as it came.
func (t *eventRows) readProperties(e *event.Event) {
	var f struct {
		order, checkout, cart, product, category, currency, price, quantity, value, revenue, total, url, path, referrer, title raw
	}
	o := t.reader.Properties()
	for i := range o.Len() {
		v := o.Value(i)
		switch o.Name(i) {
		case "order_id":
			f.order.first(v)
		case "checkout_id":
			f.checkout.first(v)
		case "cart_id":
			f.cart.first(v)
		case "product_id":
			f.product.first(v)
		case "category":
			f.category.first(v)
		case "currency":
			f.currency.first(v)
		case "price":
			f.price.first(v)
		case "quantity":
			f.quantity.first(v)
		case "value":
			f.value.first(v)
		case "revenue":
			f.revenue.first(v)
		case "total":
			f.total.first(v)
		case "url":
			f.url.first(v)
		case "path":
			f.path.first(v)
		case "referrer":
			f.referrer.first(v)
		case "title":
			f.title.first(v)
		}
	}
	row := &t.row
	row.OrderID, row.CheckoutID, row.CartID = f.order.Text(), f.checkout.Text(), f.cart.Text()
	row.ProductID, row.Category = f.product.Text(), f.category.Text()
	row.Currency = currency(f.currency.Text())
	row.Price = money(f.price.Value, "price", &row.Faults)
	row.Quantity = money(f.quantity.Value, "quantity", &row.Faults)
	row.Value = money(f.value.Value, "value", &row.Faults)
	row.Revenue = money(f.revenue.Value, "revenue", &row.Faults)
	row.Total = money(f.total.Value, "total", &row.Faults)
	if e.Type == event.Page || e.Type == event.Screen {
		row.URL, row.Path, row.Referrer, row.Title = f.url.Text(), f.path.Text(), f.referrer.Text(), f.title.Text()
	}
}

// readContext fills the columns of page, campaign, device and library.
func (t *eventRows) readContext() {
	var f struct{ page, campaign, device, agent, os, app, locale, ip, library raw }
	o, row := t.reader.Context(), &t.row
	for i := range o.Len() {
		v := o.Value(i)
		switch o.Name(i) {
		case "page":
			f.page.first(v)
		case "campaign":
			f.campaign.first(v)
		case "device":
			f.device.first(v)
		case "userAgent":
			f.agent.first(v)
		case "os":
			f.os.first(v)
		case "app":
			f.app.first(v)
		case "locale":
			f.locale.first(v)
		case "ip":
			f.ip.first(v)
		case "library":
			f.library.first(v)
		}
	}
	page := t.below(f.page, "url", "path", "referrer", "title")
	orElse(&row.URL, page[0])
	orElse(&row.Path, page[1])
	orElse(&row.Referrer, page[2])
	orElse(&row.Title, page[3])
	campaign := t.below(f.campaign, "source", "medium", "name", "term", "content")
	row.UTMSource, row.UTMMedium, row.UTMCampaign = campaign[0].Text(), campaign[1].Text(), campaign[2].Text()
	row.UTMTerm, row.UTMContent = campaign[3].Text(), campaign[4].Text()
	campaignOfURL(row)
	if row.DeviceType = deviceName(t.below(f.device, "type")[0].Text()); row.DeviceType == "" {
		row.DeviceType = t.deviceOf(f.agent.Text())
	}
	row.OS, row.App = t.below(f.os, "name")[0].Text(), t.below(f.app, "name")[0].Text()
	row.Locale, row.IP = f.locale.Text(), f.ip.Text()
	library := t.below(f.library, "name", "version")
	row.Library = library[0].Text()
	if v := library[1].Text(); row.Library != "" && v != "" {
		t.library = append(append(append(t.library[:0], row.Library...), '/'), v...)
		row.Library = event.View(t.library)
	}
}

// below finds members of an object, at most five.
func (t *eventRows) below(object raw, names ...string) (found [5]raw) {
	if len(object.Raw) == 0 || object.Raw[0] != '{' {
		return found
	}
	t.nested.Read(object.Raw)
	for i := range t.nested.Len() {
		if at := slices.Index(names, t.nested.Name(i)); at >= 0 {
			found[at].first(t.nested.Value(i))
		}
	}
	return found
}

// readAddress takes the person's address, if the event names one.
func (t *eventRows) readAddress(e *event.Event) {
	traits := e.RawPersonTraits()
	if !bytes.Contains(traits, []byte("address")) {
		return
	}
	t.nested.Read(traits)
	for i := range t.nested.Len() {
		if t.nested.Name(i) == "address" {
			if v := t.nested.Value(i); !v.Absent() {
				t.row.Address = v.Raw
			}
			return
		}
	}
}

// maxAgents bounds what is remembered of user agents.
const maxAgents = 4096

// deviceOf is the function, which looks through the text many times, for texts that come again and again.
func (t *eventRows) deviceOf(userAgent string) string {
	device, ok := t.devices[userAgent]
	if !ok {
		if device = deviceOf(userAgent); len(t.devices) >= maxAgents || t.devices == nil {
			t.devices = map[string]string{}
		}
		t.devices[strings.Clone(userAgent)] = device
	}
	return device
}

// raw is a member's value as it came.
type raw struct{ event.Value }

// first takes v unless there was one before it.
func (r *raw) first(v event.Value) {
	if r.Raw == nil {
		r.Value = v
	}
}

// orElse fills what is still empty.
func orElse(to *string, v raw) {
	if *to == "" {
		*to = v.Text()
	}
}
