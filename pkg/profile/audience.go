package profile

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"go.yaml.in/yaml/v3"
)

const (
	// MaxAudiences bounds the work per changed profile: each is evaluated then.
	MaxAudiences = 200
	// maxExpression is the longest expression in characters.
	maxExpression = 4096
	// maxCost bounds one evaluation, in CEL's own units (about one per step): a thousand times what the
	// shipped examples take, and still below a millisecond or so.
	maxCost = 100_000
	// maxDepth bounds the nesting of an expression.
	maxDepth = 50
)

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)

// Audience is one named condition on a profile.
type Audience struct {
	Name        string
	Description string
	When        string // the CEL expression
	Line        int    // of the file

	program cel.Program
	reads   []reading
}

// Audiences is a compiled file of audiences. It is never changed and safe for concurrent use.
type Audiences struct {
	List []*Audience // in the file's order
}

// Fault is one thing wrong with an audience file.
type Fault struct {
	File string
	Line int
	Text string
}

func (f *Fault) Error() string { return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text) }

// ParseAudiences reads and compiles an audience file:
//
//	audiences:
//	  - name: big-spenders
//	    description: Spent more than 100 dollars.
//	    when: profile.revenue["USD"] > 100.0
//
// It is strict: every unknown key, bad name and expression that does not compile is a *Fault with its line,
// all of them joined. file is the name to use in faults. An expression is CEL over the variables of
// Variables; it must be true or false, and has no clock.
func ParseAudiences(file string, text []byte) (*Audiences, error) {
	p := &parser{file: file, names: map[string]int{}}
	var err error
	if p.env, err = newEnv(); err != nil {
		return nil, fmt.Errorf("make CEL environment: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, syntaxFault(file, err)
	}
	if len(doc.Content) == 0 {
		return &Audiences{}, nil
	}
	p.document(doc.Content[0])
	if len(p.faults) > 0 {
		return nil, errors.Join(p.faults...)
	}
	return &Audiences{List: p.list}, nil
}

var (
	lineInError = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)
	// parserError are the library's messages about a construct that was begun and not ended; their line is
	// that of its beginning, counted from 0. The scanner's messages count from 1.
	parserError = regexp.MustCompile(`did not find expected ('-' indicator|key|',' or|node content|<)`)
)

// syntaxFault finds the line in a message of the YAML library.
func syntaxFault(file string, err error) *Fault {
	f := &Fault{File: file, Line: 1, Text: lineInError.ReplaceAllString(strings.TrimPrefix(err.Error(), "yaml: "), "")}
	if m := lineInError.FindStringSubmatch(err.Error()); m != nil {
		_, _ = fmt.Sscan(m[1], &f.Line) // digits by the pattern
		if parserError.MatchString(f.Text) {
			f.Line++
		}
	}
	return f
}

type parser struct {
	file   string
	env    *cel.Env
	names  map[string]int // name -> line
	list   []*Audience
	faults []error
}

func (p *parser) fault(line int, format string, args ...any) {
	p.faults = append(p.faults, &Fault{File: p.file, Line: line, Text: fmt.Sprintf(format, args...)})
}

// fields visits the pairs of a mapping; unknown and repeated keys are faults.
func (p *parser) fields(n *yaml.Node, what string, known map[string]func(*yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		p.fault(n.Line, "%s: a mapping with the keys %s is wanted", what, keysOf(known))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		f, ok := known[k.Value]
		switch {
		case !ok:
			p.fault(k.Line, "%s: unknown key %q (known: %s)", what, k.Value, keysOf(known))
		case seen[k.Value]:
			p.fault(k.Line, "%s: %s stands here a second time", what, k.Value)
		default:
			seen[k.Value] = true
			f(n.Content[i+1])
		}
	}
}

func (p *parser) document(n *yaml.Node) {
	p.fields(n, "file", map[string]func(*yaml.Node){"audiences": func(v *yaml.Node) {
		if v.Kind != yaml.SequenceNode {
			p.fault(v.Line, "audiences: a list is wanted")
			return
		}
		if len(v.Content) > MaxAudiences {
			p.fault(v.Line, "audiences: %d of them, at most %d", len(v.Content), MaxAudiences)
			return
		}
		for _, item := range v.Content {
			p.audience(item)
		}
	}})
}

func (p *parser) audience(n *yaml.Node) {
	a := &Audience{Line: n.Line}
	whenLine := n.Line
	text := func(to *string, name string, line *int) func(*yaml.Node) {
		return func(v *yaml.Node) {
			if v.Kind != yaml.ScalarNode || v.Tag == "!!null" {
				p.fault(v.Line, "%s: text is wanted", name)
				return
			}
			*to = strings.TrimSpace(v.Value)
			if line != nil {
				*line = v.Line
				if v.Style == yaml.LiteralStyle || v.Style == yaml.FoldedStyle {
					*line++ // the text begins below the | or >
				}
			}
		}
	}
	before := len(p.faults)
	p.fields(n, "audience", map[string]func(*yaml.Node){
		"name": text(&a.Name, "name", nil), "description": text(&a.Description, "description", nil), "when": text(&a.When, "when", &whenLine),
	})
	if len(p.faults) > before {
		return
	}
	switch first, twice := p.names[a.Name]; {
	case !validName.MatchString(a.Name):
		p.fault(a.Line, "name: %q is none: want lower-case letters, digits, - and _, at most 64", a.Name)
	case twice:
		p.fault(a.Line, "name: %q stands already in line %d", a.Name, first)
	}
	p.names[a.Name] = a.Line
	if a.When == "" {
		p.fault(whenLine, "when: missing in audience %q", a.Name)
		return
	}
	p.compile(a, whenLine)
	p.list = append(p.list, a)
}

// compile parses and checks the expression, and finds what it reads.
func (p *parser) compile(a *Audience, line int) {
	checked, issues := p.env.Compile(a.When)
	if issues.Err() != nil {
		for _, e := range issues.Errors() {
			// An error of the expression as a whole has no place (line 0).
			p.fault(line+max(0, e.Location.Line()-1), "when: column %d: %s", e.Location.Column()+1, e.Message)
		}
		return
	}
	if !checked.OutputType().IsExactType(cel.BoolType) {
		p.fault(line, "when: true or false is wanted, this is %s (compare it with a value)", checked.OutputType())
		return
	}
	program, err := p.env.Program(checked, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		p.fault(line, "when: %s", err)
		return
	}
	a.program, a.reads = program, readings(checked.NativeRep().Expr())
}

func keysOf(m map[string]func(*yaml.Node)) string {
	if len(m) == 1 {
		return "audiences"
	}
	return "name, description, when"
}

// newEnv declares what expressions may use.
func newEnv() (*cel.Env, error) {
	opts := []cel.EnvOption{
		cel.CrossTypeNumericComparisons(true), // revenue["USD"] > 100 means what it says
		cel.OptionalTypes(),
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ParserRecursionLimit(maxDepth),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateDurationLiterals()),
	}
	for _, v := range Variables() {
		opts = append(opts, cel.Variable(v.Name, v.typ))
	}
	return cel.NewEnv(opts...)
}

// reading is a value that an expression depends on, for the reason that is given with a change.
type reading struct {
	text     string // as in the expression: profile.revenue["USD"]
	variable string
	key      string // of a map; "" if the variable is read as a whole
}

// maxReadings bounds the reasons given.
const maxReadings = 10

// readings lists the variables of scalar type and the entries of maps by a literal key that e reads.
func readings(e ast.Expr) []reading {
	var rs []reading
	seen := map[string]bool{}
	add := func(r reading) {
		if !seen[r.text] && len(rs) < maxReadings {
			seen[r.text] = true
			rs = append(rs, r)
		}
	}
	scalar := map[string]bool{}
	for _, v := range Variables() {
		scalar[v.Name] = v.scalar
	}
	ast.PreOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.IdentKind:
			if name := e.AsIdent(); scalar[name] {
				add(reading{text: name, variable: name})
			}
		case ast.SelectKind:
			if op := e.AsSelect().Operand(); op.Kind() == ast.IdentKind {
				key := e.AsSelect().FieldName()
				add(reading{text: op.AsIdent() + "." + key, variable: op.AsIdent(), key: key})
			}
		case ast.CallKind:
			args := e.AsCall().Args()
			if len(args) != 2 || args[0].Kind() != ast.IdentKind || args[1].Kind() != ast.LiteralKind || !strings.Contains(e.AsCall().FunctionName(), "[") {
				return
			}
			if key, ok := args[1].AsLiteral().(types.String); ok {
				add(reading{text: fmt.Sprintf("%s[%q]", args[0].AsIdent(), string(key)), variable: args[0].AsIdent(), key: string(key)})
			}
		}
	}))
	return rs
}
