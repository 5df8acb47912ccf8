package journey

import (
	"errors"
	htmltemplate "html/template"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	texttemplate "text/template"
	"text/template/parse"

	"go.yaml.in/yaml/v3"
)

// templates compiles the three parts: syntax, then every field that is named anywhere (also in branches
// that a sample would not take), then a run over samples.
func (p *parser) templates(fields map[string]*yaml.Node) templates {
	var t templates
	for _, name := range []string{"subject", "text", "html"} {
		n := fields[name]
		src := p.text(n, name)
		if src == "" {
			continue
		}
		c := &compiled{parser: p, field: name, node: n, src: src}
		plain := c.compileText()
		if plain == nil {
			continue
		}
		switch name {
		case "subject":
			t.subject = plain
		case "text":
			t.text = plain
		case "html":
			t.html = c.compileHTML()
		}
	}
	return t
}

// compiled is one part of a journey file on its way to a template.
type compiled struct {
	*parser
	field string
	node  *yaml.Node
	src   string
}

// fileLine is where line n (from 1) of the part stands in the file. Only a literal block keeps its lines.
func (c *compiled) fileLine(n int) int {
	if c.node.Style&yaml.LiteralStyle != 0 && n > 0 {
		return c.node.Line + n
	}
	return c.node.Line
}

// lineOf is the line of the part that a node of its template stands on.
func (c *compiled) lineOf(n parse.Node) int {
	return 1 + strings.Count(c.src[:min(int(n.Position()), len(c.src))], "\n")
}

// templateError is how text/template and html/template name a place: "template: NAME:LINE[:COLUMN]: ".
var templateError = regexp.MustCompile(`(?s)^(?:html/)?template: ?[^:]*:(\d+)(?::\d+)?: (.*)$`)

func (c *compiled) report(err error) {
	msg, line := err.Error(), 0
	if m := templateError.FindStringSubmatch(msg); m != nil {
		line, _ = strconv.Atoi(m[1])
		msg = m[2]
	}
	c.fault(c.fileLine(line), c.field, "%s", msg)
}

// compileText compiles and checks; nil after a fault.
func (c *compiled) compileText() *texttemplate.Template {
	t, err := texttemplate.New(c.field).Funcs(functions()).Option("missingkey=error").Parse(c.src)
	if err != nil {
		c.report(err)
		return nil
	}
	before := len(c.faults)
	w := &walker{c: c, defined: t, root: reflect.TypeFor[MessageInput](), seen: map[string]bool{}}
	w.template(t.Tree, w.root)
	if len(c.faults) > before || c.field == "html" {
		return c.unless(before, t)
	}
	for _, in := range samples() {
		var b limited
		if err := t.Execute(&b, in); err != nil {
			c.report(err)
			break
		}
	}
	return c.unless(before, t)
}

func (c *compiled) unless(before int, t *texttemplate.Template) *texttemplate.Template {
	if len(c.faults) > before {
		return nil
	}
	return t
}

// compileHTML compiles with the escaping of html/template, whose faults only show when it runs.
func (c *compiled) compileHTML() *htmltemplate.Template {
	t, err := htmltemplate.New(c.field).Funcs(functions()).Option("missingkey=error").Parse(c.src)
	if err != nil {
		c.report(err)
		return nil
	}
	for _, in := range samples() {
		var b limited
		if err := t.Execute(&b, in); err != nil {
			var he *htmltemplate.Error
			if errors.As(err, &he) {
				line := he.Line
				if line == 0 && he.Node != nil {
					line = c.lineOf(he.Node)
				}
				what, _, _ := strings.Cut(he.Description, ": {state") // the escaper's inner state says nothing to a marketer
				c.fault(c.fileLine(line), c.field, "%s", what)
			} else {
				c.report(err)
			}
			return nil
		}
	}
	return t
}

// walker finds fields that do not exist, by the types of the template's data.
type walker struct {
	c       *compiled
	defined *texttemplate.Template
	root    reflect.Type
	seen    map[string]bool // templates called, by name and type: a recursion ends
	vars    []variable
}

type variable struct {
	name string
	typ  reflect.Type
}

func (w *walker) template(tree *parse.Tree, dot reflect.Type) {
	outer := w.vars
	w.vars = []variable{{"$", dot}}
	w.node(tree.Root, dot)
	w.vars = outer
}

// node walks one node with the type of dot, nil where that is not known.
func (w *walker) node(n parse.Node, dot reflect.Type) {
	switch n := n.(type) {
	case *parse.ListNode:
		if n != nil {
			for _, e := range n.Nodes {
				w.node(e, dot)
			}
		}
	case *parse.ActionNode:
		w.pipe(n.Pipe, dot)
	case *parse.IfNode:
		w.branch(&n.BranchNode, dot, func(reflect.Type) reflect.Type { return dot })
	case *parse.WithNode:
		w.branch(&n.BranchNode, dot, func(t reflect.Type) reflect.Type { return t })
	case *parse.RangeNode:
		w.ranged(n, dot)
	case *parse.TemplateNode:
		t := w.pipe(n.Pipe, dot)
		key := n.Name + " of " + typeName(t)
		if d := w.defined.Lookup(n.Name); d != nil && d.Tree != nil && !w.seen[key] {
			w.seen[key] = true
			w.template(d.Tree, t)
		}
	}
}

func (w *walker) branch(n *parse.BranchNode, dot reflect.Type, inner func(reflect.Type) reflect.Type) {
	mark := len(w.vars)
	t := w.pipe(n.Pipe, dot)
	w.node(n.List, inner(t))
	w.node(n.ElseList, dot)
	w.vars = w.vars[:mark]
}

func (w *walker) ranged(n *parse.RangeNode, dot reflect.Type) {
	mark := len(w.vars)
	decl := n.Pipe.Decl
	plain := *n.Pipe
	plain.Decl = nil
	t := w.pipe(&plain, dot)
	var key, elem reflect.Type
	if t != nil {
		switch t.Kind() {
		case reflect.Slice, reflect.Array:
			key, elem = reflect.TypeFor[int](), t.Elem()
		case reflect.Map:
			key, elem = t.Key(), t.Elem()
		default:
		}
	}
	switch len(decl) {
	case 1:
		w.vars = append(w.vars, variable{decl[0].Ident[0], elem})
	case 2:
		w.vars = append(w.vars, variable{decl[0].Ident[0], key}, variable{decl[1].Ident[0], elem})
	}
	w.node(n.List, elem)
	w.vars = w.vars[:mark]
	w.node(n.ElseList, dot)
}

// pipe is the type of a pipeline's value; it declares the pipeline's variables.
func (w *walker) pipe(p *parse.PipeNode, dot reflect.Type) reflect.Type {
	if p == nil {
		return nil
	}
	var t reflect.Type
	for _, cmd := range p.Cmds {
		t = w.command(cmd, dot)
	}
	for _, d := range p.Decl {
		w.vars = append(w.vars, variable{d.Ident[0], t})
	}
	return t
}

func (w *walker) command(cmd *parse.CommandNode, dot reflect.Type) reflect.Type {
	var first reflect.Type
	for i, a := range cmd.Args {
		if t := w.value(a, dot); i == 0 {
			first = t
		}
	}
	return first
}

func (w *walker) value(n parse.Node, dot reflect.Type) reflect.Type {
	switch n := n.(type) {
	case *parse.DotNode:
		return dot
	case *parse.FieldNode:
		return w.chain(n, dot, n.Ident)
	case *parse.VariableNode:
		for i := len(w.vars) - 1; i >= 0; i-- {
			if w.vars[i].name == n.Ident[0] {
				return w.chain(n, w.vars[i].typ, n.Ident[1:])
			}
		}
	case *parse.ChainNode:
		return w.chain(n, w.value(n.Node, dot), n.Field)
	case *parse.PipeNode:
		return w.pipe(n, dot)
	}
	return nil
}

// chain follows fields from t; a name that t does not have is a fault.
func (w *walker) chain(n parse.Node, t reflect.Type, names []string) reflect.Type {
	for _, name := range names {
		if t == nil || t.Kind() == reflect.Interface {
			return nil
		}
		if m, ok := t.MethodByName(name); ok {
			t = m.Type.Out(0)
			continue
		}
		if t.Kind() == reflect.Map {
			t = t.Elem()
			continue
		}
		if t.Kind() == reflect.Struct {
			if f, ok := t.FieldByName(name); ok && f.IsExported() {
				t = f.Type
				continue
			}
		}
		w.c.fault(w.c.fileLine(w.c.lineOf(n)), w.c.field, "%s: there is no %s%s", n, name, having(t))
		return nil
	}
	return t
}

// having lists what a type does have, for a fault.
func having(t reflect.Type) string {
	if t.Kind() != reflect.Struct || t.NumField() == 0 {
		return ""
	}
	var names []string
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() {
			names = append(names, f.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "; there are " + strings.Join(names, ", ")
}

func typeName(t reflect.Type) string {
	if t == nil {
		return "?"
	}
	return t.String()
}
