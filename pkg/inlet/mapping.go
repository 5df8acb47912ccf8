package inlet

import (
	"errors"
	"sync"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/expr"
)

// Mapping is an event.Mapping whose expressions are those of package expr. It is safe for concurrent use.
type Mapping struct {
	mapping *event.Mapping
	env     *expr.Env
	pool    sync.Pool
}

// CompileMapping reads a mapping of records that are not from a topic, such as the rows of a file: its expressions
// know the variable record only.
func CompileMapping(fields map[string]string) (*Mapping, error) {
	env, err := expr.NewEnv(expr.Options{Variables: []string{varRecord}})
	if err != nil {
		return nil, err
	}
	return compileMapping(env, fields)
}

func compileMapping(env *expr.Env, fields map[string]string) (*Mapping, error) {
	m, err := event.CompileMapping(fields, func(text string) (event.Expression, error) {
		p, err := env.Compile(text)
		if err != nil {
			return nil, err
		}
		return func(dst []byte, in any) ([]byte, bool, error) {
			vars, ok := in.(*expr.Vars)
			if !ok {
				return dst, false, errors.New("an expression without variables")
			}
			return p.AppendJSON(dst, vars)
		}, nil
	})
	if err != nil {
		return nil, err
	}
	return &Mapping{mapping: m, env: env}, nil
}

// Event makes the event of one record. The error is an *event.Error.
func (m *Mapping) Event(record []byte) ([]byte, error) {
	if err := event.CheckJSON(record); err != nil {
		return nil, err
	}
	vars := m.take()
	defer m.give(vars)
	vars.SetJSON(varRecord, record)
	return m.mapping.Event(record, vars)
}

func (m *Mapping) take() *expr.Vars {
	if v, ok := m.pool.Get().(*expr.Vars); ok {
		return v
	}
	return m.env.NewVars()
}

func (m *Mapping) give(v *expr.Vars) {
	v.Clear()
	m.pool.Put(v)
}
