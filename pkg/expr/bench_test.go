package expr_test

import (
	"testing"

	"github.com/weft-cdp/weft/pkg/expr"
)

// The record is a till's sale with two lines. A hundred lines make the walk long.
func BenchmarkEval(b *testing.B) {
	env := newEnv(b)
	for name, text := range map[string]string{
		"copy": `record.total`, "nested": `record.customer.mail`, "condition": `record.id == 4711 && record.vip`,
		"arithmetic": `record.total * record.id`, "default": `default(record.nothing, record.total)`, "hmac": `hmac(email(record.customer.mail), "email")`,
		"walk": `record.lines.map(l, {"sku": l.sku, "total": l.price * l.qty})`,
	} {
		p, err := env.Compile(text)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			vars := env.NewVars()
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				vars.SetJSON("record", []byte(sale))
				if dst, _, err = p.AppendJSON(dst[:0], vars); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	env := newEnv(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := env.Compile(`record.lines.map(l, {"sku": l.sku, "total": l.price * l.qty})`); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewEnv(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := expr.NewEnv(expr.Options{Variables: []string{"record"}}); err != nil {
			b.Fatal(err)
		}
	}
}
