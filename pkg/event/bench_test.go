package event

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valyala/fastjson"
)

// envelope is shaped like a product view of a real SDK, 700 bytes.
const envelope = `{"timestamp":"2026-11-22T06:59:14.325Z","integrations":{},"event":"Product Added","type":"track","properties":{"cart_id":"analytics-node-sample-cart","product_id":"SKU-507","sku":"507-41","name":"Żółte buty „Wróbel” 👟","brand":"Çiçek & Søn <GmbH>","category":"รองเท้า/Обувь","variant":null,"price":349.99,"quantity":1,"currency":"PLN","coupon":null},"context":{"story":{"run":"sample","sdk":"analytics-node","step":"16-added-1"},"library":{"name":"@segment/analytics-node","version":"3.1.0"}},"anonymousId":"analytics-node-sample-web","messageId":"node-next-1795330754325-00c39fbe-0320-4286-aceb-2982bdf607aa","_metadata":{"nodeVersion":"v20.20.2","jsRuntime":"node"}}`

// BenchmarkEnvelope reads an event in turns, forth and back, with a Reader and with fastjson (a parser that is used again,
// seven fields), by CPU time of the process. The Reader also checks UTF-8, shape and ids, and works out the time.
func BenchmarkEnvelope(b *testing.B) {
	const rounds, events = 7, 100_000
	body, meta := []byte(envelope), Meta{ReceivedAt: received}
	var r Reader
	var p fastjson.Parser
	paths := [][]string{{"type"}, {"event"}, {"anonymousId"}, {"messageId"}, {"properties", "product_id"}, {"context", "library"}, {"timestamp"}}
	turns := []func(){
		func() {
			v, err := p.ParseBytes(body)
			for _, path := range paths {
				if err != nil || v.Get(path...) == nil {
					b.Fatal(err, path)
				}
			}
		},
		func() {
			e, err := r.Decode(body, meta)
			if err != nil || e.Name == "" || e.AnonymousID == "" || e.MessageID == "" || e.Type != Track || e.Time.IsZero() ||
				r.Properties().Find("product_id").Absent() || r.Context().Find("library").Absent() {
				b.Fatal(err)
			}
		},
	}
	require.Zero(b, testing.AllocsPerRun(100, turns[1]))
	cpu := func() time.Duration {
		var u syscall.Rusage
		require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	var costs [2][]float64
	var ratios []float64
	for round := range rounds {
		var cost [2]float64
		for k := range turns {
			i := (k + round) % 2
			before := cpu()
			for range events {
				turns[i]()
			}
			cost[i] = float64((cpu() - before).Nanoseconds()) / events
			costs[i] = append(costs[i], cost[i])
		}
		ratios = append(ratios, cost[1]/cost[0])
	}
	for _, list := range [][]float64{costs[0], costs[1], ratios} {
		slices.Sort(list)
	}
	b.ReportMetric(costs[0][rounds/2], "fastjson-ns/event")
	b.ReportMetric(costs[1][rounds/2], "reader-ns/event")
	b.ReportMetric(ratios[rounds/2], "reader/fastjson")
	b.Logf("%.2f to %.2f of fastjson", ratios[0], ratios[rounds-1])
	b.ReportMetric(0, "ns/op") // the turns say it
}
