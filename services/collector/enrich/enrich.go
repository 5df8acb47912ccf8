// Package enrich adds to an event of a browser or an app what its request says and the sender did not: address,
// user agent, device, system, browser, campaign; and tells bots.
//
// It owns: whose address a request comes from, what is kept of it, and how a user agent and a page's address are
// read. It guarantees that the event is edited as text, that nothing which the sender set is changed (but an
// address that is configured to be shortened or dropped, whoever named it), and that the same event from the same
// request becomes the same. It does no I/O and must not know HTTP, sources or topics.
package enrich

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"github.com/weft-cdp/weft/pkg/event"
)

// What is kept of an address.
const (
	IPKeep     = "keep"
	IPTruncate = "truncate" // IPv4 to /24, IPv6 to /48: a neighbourhood, no household
	IPDrop     = "drop"
)

// Bits that are left of a truncated address.
const (
	truncatedIPv4 = 24
	truncatedIPv6 = 48
)

// Options say what is added to the events of one source.
type Options struct {
	// Client says that the person's own device sends: its connection's address is the person's. Otherwise it is only
	// if an event says so (context.direct is true).
	Client bool
	// Browser says that the request's user agent is the person's browser.
	Browser bool
	// Agents says that user agents and campaigns are read.
	Agents bool
	IP     string // IPKeep, IPTruncate or IPDrop
	Bots   bool   // tell them
}

// Request is what is known of a request.
type Request struct {
	IP        netip.Addr // of the client, see ClientIP; not valid: unknown
	UserAgent string
}

// Enricher is safe for concurrent use.
type Enricher struct {
	opt    Options
	ip     event.Path
	agents agents
}

// Work is the memory in which one event after another is enriched. Its zero value is ready. It is for one goroutine.
type Work struct {
	context *event.Object // the event's, in the reader that looks at it
	inner   event.Object
	fill    []byte
}

// Forget lets go of what was enriched. It keeps the memory for what comes.
func (w *Work) Forget() {
	w.context = nil
	w.inner.Read(nil)
}

// New checks the options.
func New(opt Options) (*Enricher, error) {
	switch opt.IP {
	case IPKeep, IPTruncate, IPDrop:
	default:
		return nil, fmt.Errorf("ip: %q is not %s, %s or %s", opt.IP, IPKeep, IPTruncate, IPDrop)
	}
	path, err := event.ParsePath("context.ip")
	if err != nil {
		return nil, fmt.Errorf("ip: %w", err)
	}
	return &Enricher{opt: opt, ip: path}, nil
}

// Apply returns the event with what its request adds, and whether a bot sent it. body is an event that Compose of in has
// made, or another reader's; it is not changed. The error is an *event.Error.
func (e *Enricher) Apply(w *Work, in *event.Reader, body []byte, r Request) (out []byte, bot bool, err error) {
	if err := in.Look(body); err != nil {
		return nil, false, err
	}
	w.context = in.LookedContext()
	w.fill = append(w.fill[:0], '{')
	if string(w.context.Find("historical").Raw) == "true" {
		r = Request{} // whoever sends it now is not who made it then
	}
	hides := e.opt.IP != IPKeep && !w.context.Find("ip").Absent()
	e.address(w, r)
	if e.opt.Agents {
		bot = e.agent(w, r)
		e.campaign(w, w.context.Find("page").Raw, in.LookedProperties())
	}
	out = body
	if len(w.fill) > 1 {
		w.fill[len(w.fill)-1] = '}' // the last comma
		if out, err = in.FillContext(body, w.fill); err != nil {
			return nil, bot, err
		}
	}
	if hides {
		out = e.ip.Replace(out, e.hide)
	}
	return out, bot, nil
}

// address adds the client's address.
func (e *Enricher) address(w *Work, r Request) {
	if e.opt.IP == IPDrop || !r.IP.IsValid() || !w.context.Find("ip").Absent() {
		return
	}
	if e.opt.Client || string(w.context.Find("direct").Raw) == "true" {
		w.name("ip")
		w.fill = append(shorten(r.IP, e.opt.IP).AppendTo(append(w.fill, '"')), '"', ',')
	}
}

// hide is what is left of an address that the sender named; one that is none is left as it is, unless it is to be
// dropped.
func (e *Enricher) hide(raw []byte) []byte {
	if e.opt.IP == IPDrop {
		return []byte("null")
	}
	ip, err := netip.ParseAddr(strings.TrimSpace(event.RawText(raw)))
	if err != nil {
		return []byte("null") // who knows what it is
	}
	return event.AppendJSONString(nil, shorten(ip, e.opt.IP).String())
}

func shorten(ip netip.Addr, mode string) netip.Addr {
	ip = ip.Unmap().WithZone("")
	if mode != IPTruncate {
		return ip
	}
	bits := truncatedIPv6
	if ip.Is4() {
		bits = truncatedIPv4
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Addr{} // cannot be: it has as many bits
	}
	return p.Addr()
}

// agent adds what the user agent tells, and says whether it is a bot's.
func (e *Enricher) agent(w *Work, r Request) (bot bool) {
	text := w.context.Find("userAgent").Text()
	if text == "" && e.opt.Browser && r.UserAgent != "" {
		text = strings.ToValidUTF8(r.UserAgent[:min(len(r.UserAgent), maxAgentBytes)], "")
		w.text("userAgent", text)
	}
	if text == "" {
		return false
	}
	a := e.agents.read(text)
	if a.bot {
		return e.opt.Bots
	}
	// A system or browser that the sender names is not given a version from elsewhere.
	for _, part := range [...]struct {
		name, key string
		members   []byte
	}{{"device", "type", a.device}, {"os", "name", a.os}, {"browser", "name", a.browser}} {
		if len(part.members) == 0 {
			continue
		}
		own := w.context.Find(part.name)
		if !own.Absent() {
			w.inner.Read(own.Raw)
			if own.Raw[0] != '{' || !w.inner.Find(part.key).Absent() {
				continue
			}
		}
		w.raw(part.name, part.members)
	}
	return false
}

func (w *Work) name(name string) { w.fill = append(event.AppendJSONString(w.fill, name), ':') }

func (w *Work) text(name, s string) {
	w.name(name)
	w.fill = append(event.AppendJSONString(w.fill, s), ',')
}

func (w *Work) raw(name string, value []byte) {
	w.name(name)
	w.fill = append(append(w.fill, value...), ',')
}

// url is the address of the page: context.page.url, else that of a page call itself.
func (w *Work) url(page, properties []byte) string {
	for _, raw := range [][]byte{page, properties} {
		if !bytes.Contains(raw, []byte("utm")) { // saves the reading, nearly always; "utm" has no escapes to hide in
			continue
		}
		w.inner.Read(raw)
		if url := w.inner.Find("url").Text(); url != "" {
			return url
		}
	}
	return ""
}
