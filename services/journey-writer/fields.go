package writer

import (
	"net/url"
	"strings"
	"time"

	"github.com/valyala/fastjson"

	"github.com/weft-cdp/weft/pkg/commerce"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

// lastTime is below the end of ClickHouse's DateTime64, which is the year 2299.
var lastTime = time.Date(2299, 12, 31, 0, 0, 0, 0, time.UTC)

// inRange is t if the column can hold it, else the nearest it can; a zero time stays zero, which is 1970 or
// NULL in the column.
func inRange(t time.Time) time.Time {
	switch {
	case t.IsZero():
		return t
	case t.Unix() < 0:
		return time.Unix(0, 0).UTC()
	case t.After(lastTime):
		return lastTime
	}
	return t
}

// money reads a number into Decimal(18,4): none if it is absent or null; none with the field's name among
// faults if it does not fit.
func money(v event.Value, field string, faults *[]string) warehouse.Amount {
	if v.Absent() {
		return warehouse.Amount{}
	}
	text := v.Text()
	if text == "" && v.Raw[0] == '"' { // "": some senders' null
		return warehouse.Amount{}
	}
	units, err := commerce.ParseUnits(text)
	if err != nil {
		*faults = append(*faults, field)
		return warehouse.Amount{}
	}
	return warehouse.Amount{Units: units, Some: true}
}

// moneyIn is money of a member of a parsed object.
func moneyIn(v *fastjson.Value, field string, faults *[]string) warehouse.Amount {
	x := v.Get(field)
	if x == nil {
		return warehouse.Amount{}
	}
	return money(event.Value{Raw: x.MarshalTo(nil)}, field, faults)
}

// currency is the code in upper case.
func currency(s string) string { return strings.ToUpper(strings.TrimSpace(s)) }

// Device types that the user agent can tell. context.device.type may say others.
const (
	deviceMobile  = "mobile"
	deviceTablet  = "tablet"
	deviceDesktop = "desktop"
)

func deviceName(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

// deviceOf is the kind of device by its user agent, as coarse as reports need it: browsers say "Mobile" on
// telephones, and Android tablets are those that do not. "" for servers and everything that is no browser.
func deviceOf(userAgent string) string {
	has := func(s string) bool { return strings.Contains(userAgent, s) }
	switch {
	case userAgent == "":
		return ""
	case has("iPad") || has("Tablet") || has("Android") && !has("Mobile"):
		return deviceTablet
	case has("Mobi") || has("iPhone"):
		return deviceMobile
	case has("Mozilla/") && !has("bot") && !has("Bot"):
		return deviceDesktop
	}
	return ""
}

// campaignOfURL fills the campaign from the page's address, where context.campaign does not name it. Of
// equal names the first counts.
func campaignOfURL(row *warehouse.Event) {
	_, query, ok := strings.Cut(row.URL, "?")
	if !ok || !strings.Contains(query, "utm_") {
		return
	}
	query, _, _ = strings.Cut(query, "#")
	var seen [5]bool
	for query != "" {
		var pair string
		if pair, query, _ = strings.Cut(query, "&"); strings.Contains(pair, ";") {
			continue // as url.ParseQuery
		}
		name, value, _ := strings.Cut(pair, "=")
		if name, ok = unescaped(name); !ok || !strings.HasPrefix(name, "utm_") {
			continue
		}
		if value, ok = unescaped(value); !ok {
			continue
		}
		for i, f := range [...]struct {
			to   *string
			name string
		}{
			{&row.UTMSource, "utm_source"}, {&row.UTMMedium, "utm_medium"}, {&row.UTMCampaign, "utm_campaign"},
			{&row.UTMTerm, "utm_term"}, {&row.UTMContent, "utm_content"},
		} {
			if f.name == name && !seen[i] {
				if seen[i] = true; *f.to == "" {
					*f.to = strings.ToValidUTF8(value, "\uFFFD")
				}
			}
		}
	}
}

// unescaped is url.QueryUnescape; most names and values need nothing.
func unescaped(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s, true
	}
	out, err := url.QueryUnescape(s)
	return out, err == nil
}
