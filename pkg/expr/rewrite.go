package expr

import (
	"cel.dev/cel-go/common/ast"
	op "cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// The operators of CEL know its own kinds of values only, and their meaning cannot be widened where they are
// declared. So a parsed expression is checked as it stands and then changed: its operators become functions of
// this package, which know JSON numbers and absent values.
var replaced = map[string]string{
	op.Add: "@add", op.Subtract: "@subtract", op.Multiply: "@multiply", op.Divide: "@divide", op.Modulo: "@modulo", op.Negate: "@negate",
	op.Equals: "@equal", op.NotEquals: "@unequal",
	op.Less: "@less", op.LessEquals: "@atmost", op.Greater: "@greater", op.GreaterEquals: "@atleast",
	op.In: "@within", op.Index: "@member",
}

// ours are the functions (not those of a value, as in x.trim()) that know JSON numbers and absent values themselves.
var ours = map[string]bool{
	"@plain": true, "@truth": true, "@has": true, "@some": true, op.NotStrictlyFalse: true,
	"default": true, "coalesce": true, "time": true, "lower": true, "upper": true, "trim": true, "email": true, "phone": true,
	"sha256": true, "hmac": true, "text": true, "number": true, "round": true, "sum": true, "json": true, "toJson": true, "size": true,
	"string": true, "int": true, "type": true, "dyn": true,
}

// asked are the questions that CEL asks of texts: of what is absent the answer is no, as with comparisons.
var asked = map[string]bool{"startsWith": true, "endsWith": true, "contains": true, "matches": true}

// rewrite changes a parsed expression in place, and says whether it walks over lists.
func rewrite(a *ast.AST) (walks bool) {
	r := rewriter{factory: ast.NewExprFactory(), next: ast.MaxID(a), info: a.SourceInfo()}
	ast.PostOrderVisit(a.Expr(), ast.NewExprVisitor(r.visit))
	return r.walks
}

type rewriter struct {
	factory ast.ExprFactory
	next    int64
	info    *ast.SourceInfo
	walks   bool
}

func (r *rewriter) visit(e ast.Expr) {
	switch e.Kind() {
	case ast.ComprehensionKind:
		r.walks = true
	case ast.SelectKind:
		s := e.AsSelect()
		name := r.factory.NewLiteral(r.id(e), celString(s.FieldName()))
		function := "@member"
		if s.IsTestOnly() {
			function = "@has"
		}
		e.SetKindCase(r.factory.NewCall(e.ID(), function, s.Operand(), name))
	case ast.CallKind:
		r.call(e)
	}
}

func (r *rewriter) call(e ast.Expr) {
	c := e.AsCall()
	name := c.FunctionName()
	switch {
	case replaced[name] != "":
		e.SetKindCase(r.factory.NewCall(e.ID(), replaced[name], c.Args()...))
	case name == op.LogicalAnd, name == op.LogicalOr, name == op.LogicalNot:
		for _, x := range c.Args() {
			r.truth(x)
		}
	case name == op.Conditional:
		r.truth(c.Args()[0])
	case c.IsMemberFunction() || !ours[name]:
		question := c.IsMemberFunction() && asked[name] && r.open(c.Target())
		if c.IsMemberFunction() {
			r.plain(c.Target())
		}
		for _, x := range c.Args() {
			r.plain(x)
		}
		if question {
			r.unlessNothing(e, c.Target())
		}
	}
}

// unlessNothing makes e, a question asked of target, false where target is absent or null.
func (r *rewriter) unlessNothing(e, target ast.Expr) {
	some := r.factory.NewCall(r.id(e), "@some", r.factory.CopyExpr(target))
	inner := r.factory.NewUnspecifiedExpr(r.id(e))
	inner.SetKindCase(e)
	e.SetKindCase(r.factory.NewCall(e.ID(), op.Conditional, some, inner, r.factory.NewLiteral(r.id(e), types.False)))
}

// plain makes e fit for a function of CEL's own.
func (r *rewriter) plain(e ast.Expr) {
	if e.Kind() == ast.ListKind { // such as that of format()
		for _, x := range e.AsList().Elements() {
			r.plain(x)
		}
		return
	}
	if r.open(e) {
		r.wrap("@plain", e)
	}
}

func (r *rewriter) truth(e ast.Expr) {
	if r.open(e) {
		r.wrap("@truth", e)
	}
}

// open says whether e may give a JSON number or an absent value. The names of accumulators begin with @: what
// they hold must stay what the walk put there.
func (r *rewriter) open(e ast.Expr) bool {
	switch e.Kind() {
	case ast.LiteralKind, ast.ListKind, ast.MapKind, ast.ComprehensionKind:
		return false
	case ast.IdentKind:
		return e.AsIdent()[0] != '@'
	case ast.CallKind:
		switch e.AsCall().FunctionName() {
		case "@equal", "@unequal", "@less", "@atmost", "@greater", "@atleast", "@within", "@has", "@some", "@truth", "@plain",
			op.LogicalAnd, op.LogicalOr, op.LogicalNot, op.NotStrictlyFalse:
			return false
		}
	}
	return true
}

// wrap makes e a call of function with what e was.
func (r *rewriter) wrap(function string, e ast.Expr) {
	inner := r.factory.NewUnspecifiedExpr(r.id(e))
	inner.SetKindCase(e)
	e.SetKindCase(r.factory.NewCall(e.ID(), function, inner))
}

// id is a new one, at the place of e.
func (r *rewriter) id(e ast.Expr) int64 {
	r.next++
	if at, ok := r.info.GetOffsetRange(e.ID()); ok {
		r.info.SetOffsetRange(r.next, at)
	}
	return r.next
}
