package transform

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/expr"
)

const (
	// minKeyBytes is the shortest key of a hash: with a shorter one e-mail addresses could be found by trying.
	minKeyBytes = 16
	// defaultRedaction stands where a value was redacted.
	defaultRedaction = "[redacted]"
)

// Compile reads a list of transformations, those in files included. The error names every fault with its path.
func Compile(list []config.Transformation) (*Chain, error) {
	if len(list) == 0 {
		return nil, nil
	}
	env, err := expr.NewEnv(expr.Options{Variables: []string{variable}})
	if err != nil {
		return nil, err
	}
	c := &compiler{env: env, chain: &Chain{}, names: map[string]bool{}}
	c.chain.vars.New = func() any { return env.NewVars() }
	c.list("transformations", list, false)
	return c.chain, errors.Join(c.errs...)
}

type compiler struct {
	env   *expr.Env
	chain *Chain
	names map[string]bool
	errs  []error
}

func (c *compiler) fault(path string, err error) {
	if err != nil {
		c.errs = append(c.errs, fmt.Errorf("%s: %w", path, err))
	}
}

// list compiles a list; one in a file may not name files itself.
func (c *compiler) list(path string, list []config.Transformation, inFile bool) {
	for i, t := range list {
		at := path + "[" + strconv.Itoa(i) + "]"
		if kinds := t.Kinds(); len(kinds) != 1 {
			c.fault(at, fmt.Errorf("does %d things, want one", len(kinds)))
			continue
		}
		switch {
		case t.File == "":
			c.rule(at, t)
		case inFile:
			c.fault(at+".file", errors.New("stands in such a file already"))
		default:
			entries, err := config.LoadTransformations(t.File)
			if err != nil {
				c.fault(at+".file", err)
				continue
			}
			c.list(at+" ("+t.File+")", entries, true)
		}
	}
}

func (c *compiler) rule(path string, t config.Transformation) {
	kind := t.Kinds()[0]
	r := rule{name: t.Name}
	if r.name == "" {
		r.name = strconv.Itoa(len(c.chain.rules)+1) + "-" + kind
	}
	if c.names[r.name] {
		c.fault(path+".name", fmt.Errorf("a second rule %q: metrics could not tell them apart", r.name))
	}
	c.names[r.name] = true
	if t.When != "" {
		r.when = c.expression(path+".when", t.When)
	}
	switch kind {
	case "drop":
		r.drop = true
	case "remove":
		r.do = remove(c.fields(path+".remove", t.Remove))
	case "rename":
		r.do = rename(c.moves(path+".rename", t.Rename))
	case "rename_event":
		r.do = renameEvent(t.RenameEvent, c.path(path, "event"))
	case "derive":
		r.do = derive(c.derivations(path+".derive", t.Derive))
	case "hash":
		r.do = replace(c.paths(path+".hash", t.Hash), hashed(c.key(path+".key_file", t.KeyFile)))
	case "redact":
		with := t.With
		if with == "" {
			with = defaultRedaction
		}
		r.do = replace(c.paths(path+".redact", t.Redact), redacted(with))
	}
	c.chain.rules = append(c.chain.rules, r)
}

func (c *compiler) expression(path, text string) *expr.Program {
	p, err := c.env.Compile(text)
	c.fault(path, err)
	return p
}

func (c *compiler) path(at, text string) event.Path {
	p, err := event.ParsePath(text)
	c.fault(at, err)
	return p
}

func (c *compiler) paths(at string, texts []string) []event.Path {
	var list []event.Path
	for i, text := range texts {
		list = append(list, c.path(at+"["+strconv.Itoa(i)+"]", text))
	}
	return list
}

// fields are paths of members: elements of arrays cannot be taken out.
func (c *compiler) fields(at string, texts []string) []event.Path {
	list := c.paths(at, texts)
	for i, text := range texts {
		if strings.HasSuffix(text, "]") && !strings.HasSuffix(text, "']") && !strings.HasSuffix(text, `"]`) {
			c.fault(at+"["+strconv.Itoa(i)+"]", fmt.Errorf("%q is an element of a list: only fields can be removed", text))
		}
	}
	return list
}

func (c *compiler) moves(at string, names map[string]string) []move {
	var list []move
	for _, from := range slices.Sorted(maps.Keys(names)) {
		p := at + "." + from
		m := move{c.path(p, from), c.path(p, names[from])}
		list = append(list, m)
		if len(c.errs) == 0 && (m.from.Wild() || m.to.Wild()) && !m.from.Beside(m.to) {
			c.fault(p, errors.New("a path with [*] keeps its place: only the last name may differ"))
		}
	}
	return list
}

func (c *compiler) derivations(at string, values map[string]string) []derivation {
	var list []derivation
	for _, to := range slices.Sorted(maps.Keys(values)) {
		p := at + "." + to
		d := derivation{c.path(p, to), c.expression(p, values[to])}
		if len(c.errs) == 0 && d.to.Wild() {
			c.fault(p, errors.New("a value is set at one place: [*] names many"))
		}
		list = append(list, d)
	}
	return list
}

func (c *compiler) key(at, file string) []byte {
	if file == "" {
		c.fault(at, errors.New("hash needs one"))
		return nil
	}
	text, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		c.fault(at, err)
		return nil
	}
	key := bytes.TrimSpace(text)
	if len(key) < minKeyBytes {
		c.fault(at, fmt.Errorf("%s: the key has %d bytes, want at least %d", file, len(key), minKeyBytes))
	}
	return key
}
