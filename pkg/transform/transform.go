// Package transform changes events before they are judged, as the configuration of their source says: drop, remove,
// rename, derive, hash and redact, in order, each on a condition if wanted.
//
// It owns: what each of them does to an event's text. It guarantees that everything they do not name keeps its
// digits, key order and escapes (the text is edited, never encoded anew); that a value which is removed, hashed or
// redacted does not stand in the text a second time behind an equal name; that an expression which fails is an
// error with the expression in it, never a silent drop; and that the same event gives the same result. It does no
// I/O but reading key files and files of transformations when it compiles. It must not know sources or topics.
package transform

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/expr"
)

// Failed is the reason code of events that a transformation could not be done with.
const Failed = "transformation_failed"

// variable is what expressions call the event.
const variable = "event"

// Chain is a list of transformations, compiled. It is never changed and safe for concurrent use; nil does nothing.
type Chain struct {
	rules []rule
	vars  sync.Pool // of *expr.Vars
}

type rule struct {
	name string
	when *expr.Program // nil: always
	do   func(c *call) error
	drop bool
}

// call is one event on its way through a chain.
type call struct {
	body []byte
	vars *expr.Vars
	seen bool // vars has body as it is
}

// variables are the event for an expression.
func (c *call) variables() *expr.Vars {
	if !c.seen {
		c.vars.SetJSON(variable, c.body)
		c.seen = true
	}
	return c.vars
}

// edited takes a new text.
func (c *call) edited(body []byte) {
	if len(body) != len(c.body) || len(body) > 0 && &body[0] != &c.body[0] {
		c.body, c.seen = body, false
	}
}

// Rules are the names of the rules, in order: a closed set for metrics.
func (c *Chain) Rules() []string {
	var names []string
	for i := range c.rules {
		names = append(names, c.rules[i].name)
	}
	return names
}

// Result is what became of an event.
type Result struct {
	Body []byte // the event's text; the one given if nothing changed it
	// Rule is the place, in Rules, of the one that dropped the event or failed; -1: none.
	Rule    int
	Dropped bool
}

// Apply does all transformations to an event's text, which must be a JSON object. An error is an *event.Error with
// the reason Failed, or of a text that is no event at all; Result then says which rule failed.
func (c *Chain) Apply(body []byte) (Result, error) {
	if c == nil || len(c.rules) == 0 {
		return Result{Body: body, Rule: -1}, nil
	}
	if err := event.CheckJSON(body); err != nil {
		return Result{Body: body, Rule: -1}, err
	}
	vars, _ := c.vars.Get().(*expr.Vars)
	defer func() {
		vars.Clear() // it holds the event's text
		c.vars.Put(vars)
	}()
	at := &call{body: body, vars: vars}
	for i := range c.rules {
		r := &c.rules[i]
		fits, err := r.fits(at)
		if err == nil && fits && r.drop {
			return Result{Body: at.body, Rule: i, Dropped: true}, nil
		}
		if err == nil && fits {
			err = r.do(at)
		}
		if err != nil {
			return Result{Body: at.body, Rule: i}, &event.Error{Reason: Failed, Path: r.name, Detail: err.Error()}
		}
	}
	return Result{Body: at.body, Rule: -1}, nil
}

func (r *rule) fits(c *call) (bool, error) {
	if r.when == nil {
		return true, nil
	}
	fits, err := r.when.Bool(c.variables())
	if err != nil {
		return false, fmt.Errorf("when: %w", err)
	}
	return fits, nil
}

// remove takes fields out.
func remove(paths []event.Path) func(*call) error {
	return func(c *call) error {
		for _, p := range paths {
			c.edited(p.Remove(c.body))
		}
		return nil
	}
}

// replace puts what with makes of them in the place of values; null stays.
func replace(paths []event.Path, with func(raw []byte) []byte) func(*call) error {
	return func(c *call) error {
		for _, p := range paths {
			c.edited(p.Replace(c.body, func(raw []byte) []byte {
				if string(raw) == "null" {
					return nil
				}
				return with(raw)
			}))
		}
		return nil
	}
}

// redacted is with instead of any value.
func redacted(with string) func([]byte) []byte {
	quoted := event.AppendJSONString(nil, with)
	return func([]byte) []byte { return quoted }
}

// hashed is the keyed hash of a value: of the text of a string, of the JSON text of anything else.
func hashed(key []byte) func([]byte) []byte {
	return func(raw []byte) []byte {
		mac := hmac.New(sha256.New, key)
		if raw[0] == '"' {
			_, _ = mac.Write([]byte(event.RawText(raw))) // a hash takes everything
		} else {
			_, _ = mac.Write(raw)
		}
		return event.AppendJSONString(nil, hex.EncodeToString(mac.Sum(nil)))
	}
}

// move is one renaming.
type move struct{ from, to event.Path }

// rename gives fields other names, in their place where the object is the same one. A field that is there already
// stays, and so does the one that would have taken its name: nothing is lost.
func rename(moves []move) func(*call) error {
	return func(c *call) error {
		for _, m := range moves {
			if m.from.Beside(m.to) {
				c.edited(m.from.Rename(c.body, m.to.Leaf()))
				continue
			}
			raw := m.from.Find(c.body)
			if raw == nil || m.to.Find(c.body) != nil {
				continue
			}
			body, err := m.to.Set(c.body, raw)
			if err != nil {
				return fmt.Errorf("rename: %w", err)
			}
			c.edited(m.from.Remove(body))
		}
		return nil
	}
}

// renameEvent gives tracks other names.
func renameEvent(names map[string]string, at event.Path) func(*call) error {
	quoted := map[string][]byte{}
	for from, to := range names {
		quoted[from] = event.AppendJSONString(nil, to)
	}
	return func(c *call) error {
		c.edited(at.Replace(c.body, func(raw []byte) []byte { return quoted[event.RawText(raw)] }))
		return nil
	}
}

// derivation is one field and where its value comes from.
type derivation struct {
	to    event.Path
	value *expr.Program
}

// derive sets fields. All values are those of the event as it was before the first is set, so that their order
// says nothing.
func derive(list []derivation) func(*call) error {
	return func(c *call) error {
		values := make([][]byte, len(list))
		for i, d := range list {
			raw, ok, err := d.value.AppendJSON(nil, c.variables())
			if err != nil {
				return fmt.Errorf("derive: %s: %w", d.to, err)
			}
			if ok {
				values[i] = raw
			}
		}
		for i, d := range list {
			if values[i] == nil {
				continue
			}
			body, err := d.to.Set(c.body, values[i])
			if err != nil {
				return fmt.Errorf("derive: %w", err)
			}
			c.edited(body)
		}
		return nil
	}
}
