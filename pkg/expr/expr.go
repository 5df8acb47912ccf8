// Package expr is the one expression language of Weft's doors: CEL over JSON, for the mapping of foreign records,
// for transformations of events and for the repair of rejected ones.
//
// It owns: the functions of the language, how JSON looks in it, its bounds, and where a fault stands.
//
// It guarantees:
//   - An expression is pure and bounded: no clock, no I/O, a limit on its length, its nesting and on the steps of
//     one evaluation, whatever the record holds.
//   - What a record does not have is no fault: record.a.b is absent if any of it is missing, comparisons with it
//     are false, as are startsWith, endsWith, contains and matches, and the functions of this package pass it on.
//     has(), default() and coalesce() tell it apart.
//   - A value that is copied keeps its digits: 19.90 stays 19.90 and a number of 30 digits keeps all of them.
//     Sums and products are of decimals, never of floats. Objects and arrays that are copied keep their text.
//   - The same input gives the same output, byte for byte: members of a map literal are written in order of name.
//   - A fault has line and column: when compiling, and when evaluating.
//
// It must not know events, sources or topics; the names of the variables are its user's.
package expr

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
)

const (
	// MaxLength is the longest expression in characters: two screens full. Longer ones are programs.
	MaxLength = 4096
	// MaxCost bounds the steps of one evaluation, in CEL's own units. Walking a list of 1,000 order lines with
	// ten steps for each takes 20,000; the bound ends a walk in a walk over a record made to be slow after about
	// 50 ms.
	MaxCost = 1_000_000
	// maxNesting bounds the parser's recursion.
	maxNesting = 50
	// maxOutput bounds the JSON text of one result: above any event that is accepted (1 MB).
	maxOutput = 1 << 20
)

// Error is one fault of an expression.
type Error struct {
	Expression string // the whole of it
	Line       int    // from 1; 0: the expression as a whole
	Column     int    // from 1
	Text       string // what is wrong
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s in %q", e.Text, e.Expression)
	}
	return fmt.Sprintf("%d:%d: %s in %q", e.Line, e.Column, e.Text, e.Expression)
}

// Options is what an Env offers.
type Options struct {
	Variables []string          // names of the values an expression may use
	Secrets   map[string][]byte // keys of hmac(), by name
}

// Env compiles expressions. It is safe for concurrent use.
type Env struct {
	cel   *cel.Env
	names []string
	keys  map[string][]byte
}

// NewEnv makes an environment; building one takes about a millisecond, so share it.
func NewEnv(o Options) (*Env, error) {
	opts := []cel.EnvOption{
		cel.CrossTypeNumericComparisons(true),
		cel.ParserExpressionSizeLimit(MaxLength),
		cel.ParserRecursionLimit(maxNesting),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateDurationLiterals()),
		ext.Strings(), ext.Encoders(),
	}
	opts = append(opts, operators()...)
	opts = append(opts, functions(o.Secrets)...)
	for _, name := range o.Variables {
		opts = append(opts, cel.Variable(name, cel.DynType))
	}
	env, err := cel.NewEnv(opts...)
	if err != nil {
		return nil, fmt.Errorf("make CEL environment: %w", err)
	}
	return &Env{cel: env, names: slices.Clone(o.Variables), keys: o.Secrets}, nil
}

// Program is a compiled expression. It is never changed and safe for concurrent use.
type Program struct {
	text  string
	names []string
	cel   cel.Program
	info  *ast.SourceInfo
}

// Compile reads an expression. The error is one or more *Error, joined.
func (e *Env) Compile(text string) (*Program, error) {
	parsed, issues := e.cel.Parse(text)
	if issues.Err() == nil {
		_, issues = e.cel.Check(parsed) // as it is written, for the sake of what the faults say
	}
	if err := faults(text, issues); err != nil {
		return nil, err
	}
	if err := e.secrets(text, parsed.NativeRep()); err != nil {
		return nil, err
	}
	bounded := rewrite(parsed.NativeRep())
	checked, issues := e.cel.Check(parsed)
	if err := faults(text, issues); err != nil {
		return nil, err
	}
	opts := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if bounded { // without a walk over a list an evaluation takes no more steps than the expression is long
		opts = append(opts, cel.CostLimit(MaxCost))
	}
	program, err := e.cel.Program(checked, opts...)
	if err != nil {
		return nil, &Error{Expression: text, Text: err.Error()}
	}
	return &Program{text: text, names: e.names, cel: program, info: checked.NativeRep().SourceInfo()}, nil
}

func faults(text string, issues *cel.Issues) error {
	if issues.Err() == nil {
		return nil
	}
	var errs []error
	for _, x := range issues.Errors() {
		f := &Error{Expression: text, Text: x.Message}
		if x.Location.Line() > 0 { // an error of the expression as a whole has no place
			f.Line, f.Column = x.Location.Line(), x.Location.Column()+1
		}
		errs = append(errs, f)
	}
	return errors.Join(errs...)
}

// secrets checks that the keys of hmac() are named by literals and known.
func (e *Env) secrets(text string, a *ast.AST) error {
	var errs []error
	ast.PostOrderVisit(a.Expr(), ast.NewExprVisitor(func(x ast.Expr) {
		if x.Kind() != ast.CallKind || x.AsCall().FunctionName() != "hmac" || len(x.AsCall().Args()) != 2 {
			return
		}
		at := a.SourceInfo().GetStartLocation(x.ID())
		fault := &Error{Expression: text, Line: at.Line(), Column: at.Column() + 1}
		key := x.AsCall().Args()[1]
		name, literal := types.String(""), key.Kind() == ast.LiteralKind
		if literal {
			name, literal = key.AsLiteral().(types.String)
		}
		if !literal {
			fault.Text = "hmac: the name of the key is a literal, as in hmac(x, \"email\")"
			errs = append(errs, fault)
		} else if _, ok := e.keys[string(name)]; !ok {
			fault.Text = fmt.Sprintf("hmac: there is no key %q", string(name))
			errs = append(errs, fault)
		}
	}))
	return errors.Join(errs...)
}

// String is the expression as it was written.
func (p *Program) String() string { return p.text }

// Vars are the values of an environment's variables for evaluations. One is for one goroutine, and may be set
// anew and used again.
type Vars struct {
	names   []string
	values  []ref.Val
	objects []object // of the variables that are JSON objects, so that their lists of members are used again
}

// NewVars makes a set in which every variable is absent.
func (e *Env) NewVars() *Vars {
	v := &Vars{names: e.names, values: make([]ref.Val, len(e.names)), objects: make([]object, len(e.names))}
	v.Clear()
	return v
}

// Clear makes every variable absent.
func (v *Vars) Clear() {
	for i := range v.values {
		v.values[i] = absent
	}
}

// SetJSON sets a variable to a JSON value, which must have passed event.CheckJSON (or be part of what did). Results
// of evaluations are of use until the variable is set again, and as long as raw is as it was. nil makes it absent.
func (v *Vars) SetJSON(name string, raw []byte) {
	i := slices.Index(v.names, name)
	if i < 0 {
		return
	}
	if raw = trimSpace(raw); len(raw) > 0 && raw[0] == '{' {
		o := &v.objects[i]
		o.raw, o.listed = raw, false
		v.values[i] = o
		return
	}
	v.values[i] = fromJSON(raw)
}

// SetText sets a variable to a text.
func (v *Vars) SetText(name, text string) { v.set(name, types.String(text)) }

// SetInt sets a variable to a whole number.
func (v *Vars) SetInt(name string, n int64) { v.set(name, types.Int(n)) }

// SetBool sets a variable to true or false.
func (v *Vars) SetBool(name string, b bool) { v.set(name, types.Bool(b)) }

// set does nothing with a name that the environment does not have.
func (v *Vars) set(name string, value ref.Val) {
	if i := slices.Index(v.names, name); i >= 0 {
		v.values[i] = value
	}
}

// Parent is part of cel.Activation: there is none.
func (v *Vars) Parent() cel.Activation { return nil }

// ResolveName is part of cel.Activation.
func (v *Vars) ResolveName(name string) (any, bool) {
	for i := range v.names {
		if v.names[i] == name {
			return v.values[i], true
		}
	}
	return nil, false
}

// Eval evaluates the expression. The error is an *Error: the same values give the same error.
func (p *Program) Eval(v *Vars) (Value, error) {
	out, _, err := p.cel.Eval(v)
	if err == nil {
		return Value{out}, nil
	}
	fault := &Error{Expression: p.text, Text: strings.TrimPrefix(err.Error(), "eval error: ")}
	if x, ok := errors.AsType[*types.Err](err); ok && x.NodeID() != 0 {
		if at := p.info.GetStartLocation(x.NodeID()); at.Line() > 0 {
			fault.Line, fault.Column = at.Line(), at.Column()+1
		}
	}
	return Value{}, fault
}

// Bool evaluates a condition: absent and null are false, what is neither true nor false is an *Error.
func (p *Program) Bool(v *Vars) (bool, error) {
	out, err := p.Eval(v)
	if err != nil {
		return false, err
	}
	switch b := out.v.(type) {
	case types.Bool:
		return bool(b), nil
	case *nothing, types.Null:
		return false, nil
	}
	return false, &Error{Expression: p.text, Text: fmt.Sprintf("true or false is wanted, this is a %s", nameOf(out.v))}
}

// AppendJSON evaluates the expression and appends its value as JSON; ok is false if it is absent, and nothing is
// appended then.
func (p *Program) AppendJSON(dst []byte, v *Vars) (_ []byte, ok bool, err error) {
	out, err := p.Eval(v)
	if err != nil {
		return dst, false, err
	}
	if !out.Present() {
		return dst, false, nil
	}
	dst, err = out.AppendJSON(dst)
	if err != nil {
		return dst, false, &Error{Expression: p.text, Text: err.Error()}
	}
	return dst, true, nil
}
