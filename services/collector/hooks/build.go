package hooks

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/shopspring/decimal"
	"github.com/valyala/fastjson"

	"github.com/weft-cdp/weft/pkg/event"
)

// built is an event that is being written. Members without a value are left out.
type built struct {
	b     []byte
	comma []bool // of each open object or list: something stands in it
	mark  []int  // where each began, name included
	ids   []event.Identifier
}

func newEvent(typ event.Type, messageID string) *built {
	e := &built{b: []byte{'{'}, comma: []bool{false}, mark: []int{0}}
	e.text("type", string(typ))
	e.text("messageId", messageID)
	return e
}

func newTrack(name, messageID string) *built {
	e := newEvent(event.Track, messageID)
	e.text("event", name)
	return e
}

func (e *built) next() {
	if top := len(e.comma) - 1; e.comma[top] {
		e.b = append(e.b, ',')
	} else {
		e.comma[top] = true
	}
}

func (e *built) name(name string) {
	e.next()
	e.b = append(event.AppendJSONString(e.b, name), ':')
}

// open begins an object below name, or, without one, in a list.
func (e *built) open(name string) { e.begin(name, '{') }

// list begins a list below name.
func (e *built) list(name string) { e.begin(name, '[') }

func (e *built) begin(name string, bracket byte) {
	top := len(e.comma) - 1
	before, comma := len(e.b), e.comma[top]
	if name == "" {
		e.next()
	} else {
		e.name(name)
	}
	e.comma[top] = comma // until something stands in it: see close
	e.mark = append(e.mark, before)
	e.comma = append(e.comma, false)
	e.b = append(e.b, bracket)
}

// close ends an object or list; an empty one is left out.
func (e *built) close(bracket byte) {
	top := len(e.comma) - 1
	some, from := e.comma[top], e.mark[top]
	e.comma, e.mark = e.comma[:top], e.mark[:top]
	if !some {
		e.b = e.b[:from]
		return
	}
	e.b = append(e.b, bracket)
	e.comma[top-1] = true
}

// closeEmpty ends a list that stands there although it may be empty: no products is an emptied cart.
func (e *built) closeEmpty() {
	top := len(e.comma) - 1
	e.comma, e.mark = e.comma[:top], e.mark[:top]
	e.b = append(e.b, ']')
	e.comma[top-1] = true
}

func (e *built) text(name, s string) {
	if s = strings.TrimSpace(s); s == "" {
		return
	}
	e.name(name)
	e.b = event.AppendJSONString(e.b, s)
}

// id is text of a string or number.
func (e *built) id(name string, v *fastjson.Value) { e.text(name, idOf(v)) }

// flag writes true; false says nothing.
func (e *built) flag(name string, yes bool) {
	if yes {
		e.name(name)
		e.b = append(e.b, "true"...)
	}
}

// number writes a number with the digits it came with, whether it came as a number or as text; a text that is no
// number stays a text, so that nothing is lost.
func (e *built) number(name string, v *fastjson.Value) { e.digits(name, event.Text(v)) }

func (e *built) digits(name, text string) {
	if text = strings.TrimSpace(text); text == "" {
		return
	}
	if !isNumber(text) {
		e.text(name, text)
		return
	}
	e.name(name)
	e.b = append(e.b, text...)
}

// isNumber says whether text is a number of JSON.
func isNumber(text string) bool {
	c := text[0]
	return (c == '-' || c >= '0' && c <= '9') && json.Valid([]byte(text))
}

// at writes a time that ParseTime can read; others are left out, so that the event counts as of its receipt.
func (e *built) at(name string, texts ...string) {
	for _, s := range texts {
		if t, ok := event.ParseTime(s); ok {
			e.text(name, t.Format(time.RFC3339Nano))
			return
		}
	}
}

// identifier notes one for context.externalIds.
func (e *built) identifier(typ, value string) {
	if value = strings.TrimSpace(value); value != "" && typ != "" {
		e.ids = append(e.ids, event.Identifier{Type: typ, Value: value})
	}
}

// customer notes a shop's customer number: as userId, or as an identifier of a type of its own.
func (e *built) customer(typ, number string) {
	if typ == event.UserID {
		e.text("userId", number)
		return
	}
	e.identifier(typ, number)
}

// context writes the context: identifiers, and what more adds to it.
func (e *built) context(library, version string, more func()) {
	e.open("context")
	e.open("library")
	e.text("name", library)
	e.text("version", version)
	e.close('}')
	e.list("externalIds")
	for _, id := range e.ids {
		e.open("")
		e.text("id", id.Value)
		e.text("type", id.Type)
		e.close('}')
	}
	e.close(']')
	if more != nil {
		more()
	}
	e.close('}')
}

func (e *built) bytes() []byte { return append(e.b, '}') }

// idOf is the text of a string or number; "0" is what shops send for "none".
func idOf(v *fastjson.Value) string {
	if v == nil || v.Type() != fastjson.TypeString && v.Type() != fastjson.TypeNumber {
		return ""
	}
	if s := strings.TrimSpace(event.Text(v)); s != "0" {
		return s
	}
	return ""
}

// text is the text of the member at path; "" if there is none.
func text(v *fastjson.Value, path ...string) string {
	return strings.TrimSpace(event.Text(v.Get(path...)))
}

// first is the first of texts that is not empty.
func first(texts ...string) string {
	for _, s := range texts {
		if s != "" {
			return s
		}
	}
	return ""
}

// maxDigits bounds what is reckoned with; longer numbers, and huge exponents, are nobody's money.
const maxDigits = 40

// amount reads money; false if it is none.
func amount(text string) (decimal.Decimal, bool) {
	if text == "" || len(text) > maxDigits || !isNumber(text) || strings.ContainsAny(text, "eE") {
		return decimal.Decimal{}, false
	}
	d, err := decimal.NewFromString(text)
	return d, err == nil
}

// less is a less all of the others, with the decimals of the most exact; "" if one of them can not be read.
func less(a string, others ...string) string {
	sum, ok := amount(a)
	if !ok {
		return ""
	}
	for _, s := range others {
		d, ok := amount(s)
		if !ok {
			return ""
		}
		sum = sum.Sub(d)
	}
	return sum.StringFixed(max(0, -sum.Exponent()))
}
