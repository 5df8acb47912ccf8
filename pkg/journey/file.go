package journey

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/mail"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"
	"go.yaml.in/yaml/v3"
)

// Channels that a journey may send by.
const (
	ChannelEmail   = "email"
	ChannelWebhook = "webhook"
)

const (
	// MaxDelay is the longest delay: a cart older than 30 days is no longer abandoned but gone (features
	// 4.2).
	MaxDelay = 30 * 24 * time.Hour
	// maxFileBytes is far above any mail that is read: Gmail cuts at 102 KB.
	maxFileBytes = 1 << 20
	// versionDigits is how much of the hash a version shows: 48 bits, for a handful of versions a name.
	versionDigits = 12
)

// Journey is one checked journey file. It is immutable and safe for concurrent use.
type Journey struct {
	Name         string
	Description  string
	Version      string   // first 12 hex digits of the SHA-256 of the file in its canonical form
	Brands       []string // empty: every brand
	Delay        time.Duration
	Channel      string // ChannelEmail or ChannelWebhook
	Purpose      string // consent purpose, "marketing"
	MinimumValue decimal.Decimal
	From         string // RFC 5322 address, may have a name; required for e-mail
	ReplyTo      string
	Source       []byte // the canonical bytes: Parse gives the same journey again

	templates templates
}

// In says whether the journey runs in a brand.
func (j *Journey) In(brand string) bool {
	if len(j.Brands) == 0 {
		return true
	}
	return slices.Contains(j.Brands, brand)
}

// Fault is one thing wrong with a journey file.
type Fault struct {
	File    string
	Line    int    // from 1; 0 if the fault is of the file as a whole
	Field   string // "" if it is of no single field
	Message string
}

// String is "file:line: field: message".
func (f Fault) String() string {
	s := f.File + ":"
	if f.Line > 0 {
		s += strconv.Itoa(f.Line) + ":"
	}
	if f.Field != "" {
		s += " " + f.Field + ":"
	}
	return s + " " + f.Message
}

// Canonical is the form of a file that its version is made from: line ends are LF, and there is exactly
// one at the end. So a version is the same on every system that the file was edited on.
func Canonical(b []byte) []byte {
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	b = bytes.TrimRight(b, " \t\n")
	return append(bytes.Clone(b), '\n')
}

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Parse reads and checks a journey file. file is only used to name it in faults. All faults are reported
// at once, ordered by line; the journey is nil if there is any.
func Parse(file string, b []byte) (*Journey, []Fault) {
	p := &parser{file: file, lines: map[string]int{}}
	if len(b) > maxFileBytes {
		p.fault(0, "", "has %d bytes, more than %d", len(b), maxFileBytes)
		return nil, p.faults
	}
	src := Canonical(b)
	fields := p.fields(src)
	if fields == nil {
		return nil, p.faults
	}
	sum := sha256.Sum256(src)
	j := &Journey{Version: hex.EncodeToString(sum[:])[:versionDigits], Source: src}
	p.read(j, fields)
	if len(p.faults) > 0 {
		slices.SortStableFunc(p.faults, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
		return nil, slices.Compact(p.faults)
	}
	return j, nil
}

type parser struct {
	file   string
	faults []Fault
	lines  map[string]int // line of each field that is there
}

func (p *parser) fault(line int, field, format string, args ...any) {
	p.faults = append(p.faults, Fault{p.file, line, field, fmt.Sprintf(format, args...)})
}

// known is every field of a journey file.
var known = []string{
	"name", "description", "brands", "arms", "delay", "cancel", "channel", "purpose", "minimum_value",
	"from", "reply_to", "subject", "text", "html",
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

// fields reads the document's mapping; nil after a fault that leaves nothing to look at.
func (p *parser) fields(src []byte) map[string]*yaml.Node {
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(src))
	if err := dec.Decode(&doc); err != nil {
		msg, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
		if m := yamlLine.FindStringSubmatch(msg); m != nil {
			line, _ = strconv.Atoi(m[1])
			msg = strings.Replace(msg, m[0], "", 1)
		}
		if msg == "EOF" {
			msg = "is empty"
		}
		p.fault(line, "", "%s", msg)
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		p.fault(root.Line, "", "want fields, such as 'name: abandoned-cart'")
		return nil
	}
	var next yaml.Node
	if dec.Decode(&next) == nil {
		p.fault(next.Line, "", "one journey per file: a second document begins here")
	}
	fields := make(map[string]*yaml.Node, len(root.Content)/2)
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		switch {
		case !slices.Contains(known, k.Value):
			p.fault(k.Line, k.Value, "is not a field of a journey; known are %s", strings.Join(known, ", "))
		case fields[k.Value] != nil:
			p.fault(k.Line, k.Value, "stands twice, first on line %d", p.lines[k.Value])
		default:
			fields[k.Value] = v
			p.lines[k.Value] = k.Line
		}
	}
	return fields
}

func (p *parser) read(j *Journey, fields map[string]*yaml.Node) {
	text := func(name string) string { return p.text(fields[name], name) }
	j.Name = p.required(fields, "name")
	if j.Name != "" && !namePattern.MatchString(j.Name) {
		p.fault(p.lines["name"], "name", "%q: want small letters, digits and hyphens, at most 63", j.Name)
	}
	j.Description = text("description")
	j.Brands = p.brands(fields["brands"])
	p.oneOf(fields, "arms", "cart")
	if v := text("cancel"); v != "" && v != "order" { // an order always cancels: the field only says so
		p.fault(p.lines["cancel"], "cancel", "%q: want order", v)
	}
	j.Delay = p.delay(fields)
	j.Channel = p.required(fields, "channel")
	if j.Channel != "" && j.Channel != ChannelEmail && j.Channel != ChannelWebhook {
		p.fault(p.lines["channel"], "channel", "%q: want email or webhook", j.Channel)
	}
	j.Purpose = p.required(fields, "purpose")
	if j.Purpose != "" && j.Purpose != "marketing" {
		p.fault(p.lines["purpose"], "purpose", "%q: want marketing", j.Purpose)
	}
	if v := text("minimum_value"); v != "" {
		d, err := decimal.NewFromString(v)
		if err != nil || d.IsNegative() || d.Exponent() < -4 {
			p.fault(p.lines["minimum_value"], "minimum_value", "%q: want an amount in the cart's currency, such as 25.00", v)
		}
		j.MinimumValue = d
	}
	j.From = p.address(fields, "from")
	j.ReplyTo = p.address(fields, "reply_to")
	if j.Channel == ChannelEmail {
		for _, name := range []string{"from", "subject", "text"} {
			p.required(fields, name)
		}
	}
	j.templates = p.templates(fields)
}

// text is a scalar's text, "" if the field is absent or null.
func (p *parser) text(n *yaml.Node, name string) string {
	if n == nil || n.Tag == "!!null" {
		return ""
	}
	if n.Kind != yaml.ScalarNode {
		p.fault(n.Line, name, "want a single value")
		return ""
	}
	return n.Value
}

// required is a field's text; a field that is there with a wrong shape is already a fault.
func (p *parser) required(fields map[string]*yaml.Node, name string) string {
	before := len(p.faults)
	v := p.text(fields[name], name)
	if strings.TrimSpace(v) == "" && len(p.faults) == before {
		p.fault(p.lines[name], name, "is missing")
	}
	return v
}

func (p *parser) oneOf(fields map[string]*yaml.Node, name, want string) {
	if v := p.required(fields, name); v != "" && v != want {
		p.fault(p.lines[name], name, "%q: want %s", v, want)
	}
}

func (p *parser) delay(fields map[string]*yaml.Node) time.Duration {
	v := p.required(fields, "delay")
	if v == "" {
		return 0
	}
	d, err := time.ParseDuration(v)
	switch {
	case err != nil:
		p.fault(p.lines["delay"], "delay", "%q: want a duration with its unit, such as 45m or 1h30m", v)
	case d <= 0 || d > MaxDelay:
		p.fault(p.lines["delay"], "delay", "%s: want more than 0 and at most %d days (%s)", v, MaxDelay/(24*time.Hour), MaxDelay)
	}
	return d
}

func (p *parser) brands(n *yaml.Node) []string {
	if n == nil || n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		p.fault(n.Line, "brands", "want a list, such as [main, outlet]")
		return nil
	}
	var out []string
	for _, e := range n.Content {
		switch v := p.text(e, "brands"); {
		case v == "":
			p.fault(e.Line, "brands", "holds an empty name")
		case slices.Contains(out, v):
			p.fault(e.Line, "brands", "%q stands twice", v)
		default:
			out = append(out, v)
		}
	}
	return out
}

func (p *parser) address(fields map[string]*yaml.Node, name string) string {
	v := p.text(fields[name], name)
	if v == "" {
		return ""
	}
	if _, err := mail.ParseAddress(v); err != nil || strings.ContainsAny(v, "\r\n") {
		p.fault(p.lines[name], name, "%q: want an address, such as Shop <shop@example.com>", v)
	}
	return v
}
