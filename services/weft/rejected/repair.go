package rejected

import (
	"errors"
	"fmt"
	"strings"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/expr"
	"github.com/weft-cdp/weft/pkg/transform"
)

// textVariable is what a repair of the text calls it.
const textVariable = "text"

// Repair edits the bodies of rejected events before they go back; its zero value changes nothing.
type Repair struct {
	text  *expr.Program // gives the new text; nil: as it is
	env   *expr.Env
	chain *transform.Chain
}

// RepairOptions are the parts of a repair as they are written on a command line.
type RepairOptions struct {
	Text   string   // CEL over text, the body as text, that gives the new body: for what is no JSON
	File   string   // list of transformations, as for a source
	Set    []string // PATH=CEL over event
	Remove []string // PATH
	Rename []string // PATH=PATH
}

// NewRepair compiles a repair: the text first, then the file, then what is set, renamed and removed.
func NewRepair(o RepairOptions) (*Repair, error) {
	r := &Repair{}
	var err error
	if o.Text != "" {
		if r.env, err = expr.NewEnv(expr.Options{Variables: []string{textVariable}}); err != nil {
			return nil, err
		}
		if r.text, err = r.env.Compile(o.Text); err != nil {
			return nil, fmt.Errorf("--text: %w", err)
		}
	}
	var list []config.Transformation
	if o.File != "" {
		list = append(list, config.Transformation{File: o.File})
	}
	for _, text := range o.Set {
		path, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("--set: want PATH=EXPRESSION, found %q", text)
		}
		list = append(list, config.Transformation{Name: "--set " + text, Derive: map[string]string{strings.TrimSpace(path): value}})
	}
	for _, text := range o.Rename {
		from, to, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("--rename: want PATH=PATH, found %q", text)
		}
		list = append(list, config.Transformation{Name: "--rename " + text, Rename: map[string]string{strings.TrimSpace(from): strings.TrimSpace(to)}})
	}
	if len(o.Remove) > 0 {
		list = append(list, config.Transformation{Name: "--remove", Remove: o.Remove})
	}
	if r.chain, err = transform.Compile(list); err != nil {
		return nil, fmt.Errorf("repair: %w", err)
	}
	return r, nil
}

var (
	errNoText  = errors.New("--text gives no text")
	errDropped = errors.New("the repair drops it")
)

// apply returns the repaired body.
func (r *Repair) apply(body []byte) ([]byte, error) {
	if r.text != nil {
		vars := r.env.NewVars()
		vars.SetText(textVariable, string(body))
		v, err := r.text.Eval(vars)
		if err != nil {
			return nil, fmt.Errorf("--text: %w", err)
		}
		s, ok := v.Text()
		if !ok {
			return nil, errNoText
		}
		body = []byte(s)
	}
	result, err := r.chain.Apply(body)
	if err != nil {
		return nil, err
	}
	if result.Dropped {
		return nil, errDropped
	}
	return result.Body, nil
}

// calls are the types of the door's paths, long and short: an item of such a request need not say it itself.
var calls = map[string]event.Type{
	"t": event.Track, "i": event.Identify, "p": event.Page, "s": event.Screen, "g": event.Group, "a": event.Alias,
}

// typeOf is the type that the path of a request says; empty: none.
func typeOf(origin string) event.Type {
	if !strings.HasPrefix(origin, "/") || strings.HasPrefix(origin, hookPath) {
		return ""
	}
	last := origin[strings.LastIndexByte(origin, '/')+1:]
	if t, ok := calls[last]; ok {
		return t
	}
	t, _ := event.ParseType(last)
	return t
}
