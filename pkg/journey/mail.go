package journey

import (
	"bytes"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io"
	"strings"
	texttemplate "text/template"
	"unicode"
	"unicode/utf8"

	"github.com/shopspring/decimal"

	"github.com/weft-cdp/weft/pkg/commerce"
)

const (
	// MaxLines is the most cart lines a message lists; {{.MoreLines}} counts the others. Far more than
	// anybody reads, and it keeps a request well below Kafka's 1 MiB.
	MaxLines = 30
	// maxText is the most characters of any text of a customer or product in a message.
	maxText = 200
	// maxBytes is the most that one part of a message may have: Gmail cuts a mail at 102 KB. Both parts,
	// escaped as JSON, stay below Kafka's 1 MiB.
	maxBytes = 120 << 10
	// maxSubject is the longest subject, by RFC 5322's limit for a line.
	maxSubject = 900
)

// MessageInput is what a template sees.
type MessageInput struct {
	Brand          string // of the cart
	Person         Person
	Cart           MessageCart
	Lines          []MessageLine // at most MaxLines, in the order they came in
	MoreLines      int           // lines beyond MaxLines
	Currency       string        // the cart's: the one to show beside Cart.Value
	UnsubscribeURL string        // signed, one click; "" where nothing can be unsubscribed from
}

// Person is what a template knows of the person.
type Person struct {
	FirstName string // "" if unknown
	Email     string // "" if unknown
}

// MessageCart is the cart as a whole.
type MessageCart struct {
	ID       string          // "" if the source sends none
	Value    decimal.Decimal // in Currency
	Currency string
	Items    decimal.Decimal // number of pieces
	Checkout bool            // the person had begun to check out
}

// MessageLine is one product and variant of the cart.
type MessageLine struct {
	ProductID string
	SKU       string
	Name      string // the product's name, else its id
	Variant   string
	Brand     string // of the product
	Category  string
	URL       string // http or https, else ""
	ImageURL  string // http or https, else ""
	Price     decimal.Decimal
	Quantity  decimal.Decimal
	Total     decimal.Decimal // price times quantity
	Currency  string
}

// Mail is a rendered message.
type Mail struct {
	Subject string `json:"subject,omitempty"` // one line
	Text    string `json:"text,omitempty"`
	HTML    string `json:"html,omitempty"` // "" if the journey has none
}

// NewInput is what a template sees of a cart. Texts come from whoever sends events, so they are cut,
// freed of control characters, and links other than web links are left out.
func NewInput(brand string, who Person, cart commerce.Cart, unsubscribeURL string) MessageInput {
	in := MessageInput{
		Brand:          brand,
		Person:         Person{FirstName: clean(who.FirstName), Email: clean(who.Email)},
		Currency:       cart.Currency,
		UnsubscribeURL: unsubscribeURL,
		Cart: MessageCart{
			ID: clean(cart.ID), Value: cart.Value[cart.Currency], Currency: cart.Currency,
			Items: cart.Items(), Checkout: cart.Checkout,
		},
	}
	lines := cart.Lines
	if len(lines) > MaxLines {
		in.MoreLines = len(lines) - MaxLines
		lines = lines[:MaxLines]
	}
	for _, l := range lines {
		m := MessageLine{
			ProductID: clean(l.ProductID), SKU: clean(l.SKU), Name: clean(l.Name), Variant: clean(l.Variant),
			Brand: clean(l.Brand), Category: clean(l.Category), URL: webLink(l.URL), ImageURL: webLink(l.ImageURL),
			Price: l.Price, Quantity: l.Quantity, Total: l.Value(), Currency: l.Currency,
		}
		if m.Name == "" {
			m.Name = m.ProductID
		}
		in.Lines = append(in.Lines, m)
	}
	return in
}

// clean makes s one line of at most maxText characters.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError, unicode.Is(unicode.Bidi_Control, r): // marks that turn the direction of text
			return -1
		case unicode.IsControl(r), unicode.IsSpace(r):
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > maxText {
		s = string(r[:maxText-1]) + "…"
	}
	return strings.TrimSpace(s)
}

func webLink(s string) string {
	if !strings.HasPrefix(s, "https://") && !strings.HasPrefix(s, "http://") {
		return ""
	}
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) {
		return ""
	}
	return s
}

// templates are the compiled parts of a journey; nil for a part that it does not have.
type templates struct {
	subject, text *texttemplate.Template
	html          *htmltemplate.Template
}

// functions are what a template may call besides the language's own.
func functions() map[string]any {
	return map[string]any{
		"money":    money,
		"quantity": func(d decimal.Decimal) string { return d.String() },
		"default":  fallback,
	}
}

// minorUnits are the digits behind the point of the currencies of ISO 4217 that have other than two.
var minorUnits = map[string]int32{
	"BHD": 3, "BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "IQD": 3, "ISK": 0, "JOD": 3, "JPY": 0, "KMF": 0,
	"KRW": 0, "KWD": 3, "LYD": 3, "OMR": 3, "PYG": 0, "RWF": 0, "TND": 3, "UGX": 0, "UYI": 0, "VND": 0,
	"VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
}

// money writes an amount with its currency: {{money .Price .Currency}} is "12.90 EUR".
func money(amount decimal.Decimal, currency string) string {
	digits, ok := minorUnits[currency]
	if !ok {
		digits = 2
	}
	return strings.TrimSpace(amount.StringFixedBank(digits) + " " + currency)
}

// fallback is value, or def where value is blank: {{default "there" .Person.FirstName}}.
func fallback(def, value string) string {
	if strings.TrimSpace(value) == "" {
		return def
	}
	return value
}

// ErrTooLong means that a part of a message came out longer than any mail is read.
var ErrTooLong = errors.New("message part is too long")

// Render makes the message of a journey. The error names the part and the place in it.
func Render(j *Journey, in MessageInput) (Mail, error) {
	var m Mail
	subject, err := execute("subject", j.templates.subject != nil, func(w io.Writer) error { return j.templates.subject.Execute(w, in) })
	if err != nil {
		return Mail{}, err
	}
	if m.Subject = strings.Join(strings.Fields(strings.Map(dropControl, subject)), " "); len(m.Subject) > maxSubject {
		return Mail{}, fmt.Errorf("render subject: %w: %d bytes, limit %d", ErrTooLong, len(m.Subject), maxSubject)
	}
	if m.Text, err = execute("text", j.templates.text != nil, func(w io.Writer) error { return j.templates.text.Execute(w, in) }); err != nil {
		return Mail{}, err
	}
	if m.HTML, err = execute("html", j.templates.html != nil, func(w io.Writer) error { return j.templates.html.Execute(w, in) }); err != nil {
		return Mail{}, err
	}
	return m, nil
}

func dropControl(r rune) rune {
	if unicode.IsControl(r) {
		return ' '
	}
	return r
}

func execute(part string, have bool, run func(io.Writer) error) (string, error) {
	if !have {
		return "", nil
	}
	var b limited
	if err := run(&b); err != nil {
		return "", fmt.Errorf("render %s: %w", part, err)
	}
	return b.String(), nil
}

// limited is a buffer that refuses to grow beyond maxBytes.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > maxBytes {
		return 0, fmt.Errorf("%w: more than %d bytes", ErrTooLong, maxBytes)
	}
	return l.Buffer.Write(p)
}

// WriteString keeps io.WriteString from going round Write.
func (l *limited) WriteString(s string) (int, error) { return l.Write([]byte(s)) }
