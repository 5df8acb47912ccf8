package collector

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/stream"
)

// benchItem is shaped like a product view of a real SDK, 700 bytes.
const benchItem = `{"timestamp":"2026-11-22T06:59:14.325Z","integrations":{},"event":"Product Added","type":"track","properties":{"cart_id":"analytics-node-sample-cart","product_id":"SKU-507","sku":"507-41","name":"Żółte buty „Wróbel” 👟","brand":"Çiçek & Søn <GmbH>","category":"รองเท้า/Обувь","variant":null,"price":349.99,"quantity":1,"currency":"PLN","coupon":null},"context":{"story":{"run":"sample","sdk":"analytics-node","step":"16-added-1"},"library":{"name":"@segment/analytics-node","version":"3.1.0"}},"anonymousId":"analytics-node-sample-web","messageId":"node-next-1795330754325-00c39fbe-0320-4286-aceb-2982bdf607aa","_metadata":{"nodeVersion":"v20.20.2","jsRuntime":"node"}}`

func batchOf(n int) string {
	return `{"batch":[` + strings.TrimSuffix(strings.Repeat(benchItem+",", n), ",") + `],"writeKey":"wk_demo","sentAt":"2026-11-22T06:59:15Z"}`
}

// nowhere acknowledges at once: what is left is the door itself.
type nowhere struct{}

func (nowhere) SendAll(context.Context, []stream.Record) error { return nil }

// BenchmarkHTTP compares the door with the floor, a handler that reads the body and answers, over real
// connections on loopback. Client and server share the cores.
func BenchmarkHTTP(b *testing.B) {
	f := newFixture(b)
	f.door.collected, f.door.rejected = nowhere{}, nowhere{}
	sink := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"success":true}`)
	})
	for _, shape := range []struct {
		name, path, body string
		events           int
	}{{"1 event", "/v1/track", benchItem, 1}, {"batch of 50", "/v1/batch", batchOf(50), 50}} {
		for name, handler := range map[string]http.Handler{"door": f.door, "bare sink": sink} {
			b.Run(fmt.Sprintf("%s/%s", shape.name, name), func(b *testing.B) {
				benchHTTP(b, handler, shape.path, shape.body, shape.events)
			})
		}
	}
}

func benchHTTP(b *testing.B, handler http.Handler, path, body string, events int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	server := &http.Server{Handler: handler, ReadHeaderTimeout: headerTimeout}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	defer func() {
		require.NoError(b, server.Close())
		<-done
	}()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+l.Addr().String()+path, strings.NewReader(body))
			if err != nil {
				b.Error(err)
				return
			}
			req.Header.Set("Authorization", basic("wk_demo"))
			resp, err := client.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				b.Error(resp.Status)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N*events)/b.Elapsed().Seconds(), "events/s")
}

func unsent([]record) error { return nil }

// BenchmarkIntake is the work per event between the socket and the producer.
func BenchmarkIntake(b *testing.B) {
	f := newFixture(b)
	body := []byte(batchOf(50))
	for name, ctx := range map[string][]byte{"context in items": nil, "context of the batch": []byte(`{"library":{"name":"x","version":"1"},"locale":"pl-PL","userAgent":"Mozilla/5.0"}`)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				work := f.intake.desk()
				req, err := work.reader.Split(body, 2500)
				if err != nil {
					b.Fatal(err)
				}
				req.Context = ctx
				if _, err := f.records(&call{ep: endpoints["batch"], path: "/v1/batch", source: f.keys.find("wk_demo"), received: now}, req, work, &lease{b: &budget{max: 1 << 40}}, unsent); err != nil {
					b.Fatal(err)
				}
				f.intake.release(work)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*50), "ns/event")
		})
	}
}

// TestABatchMakesNoGarbagePerEvent counts exactly what the door allocates between the socket and the producer: a handful for a
// request, nothing for each event of it. Above one for every other event something has crept in.
func TestABatchMakesNoGarbagePerEvent(t *testing.T) {
	f := newFixture(t)
	body := []byte(batchOf(50))
	c := &call{ep: endpoints["batch"], path: "/v1/batch", source: f.keys.find("wk_demo"), received: now}
	room := &lease{b: &budget{max: 1 << 40}}
	work := f.intake.desk() // one for all: with the race detector the pool forgets some
	allocs := testing.AllocsPerRun(200, func() {
		req, err := work.reader.Split(body, 2500)
		require.NoError(t, err)
		recs, err := f.records(c, req, work, room, unsent)
		require.NoError(t, err)
		require.Len(t, recs, 50)
	})
	require.Less(t, allocs, 25.0)
}

// TestWhatARequestAllocates counts exactly, between body and answer. Of an event of a server nothing is made anew, whether it
// comes alone or with others; of one of a browser only its body, which has become another. The headers of 32 records are one
// piece of memory.
func TestWhatARequestAllocates(t *testing.T) {
	f := newFixture(t, withBrowsers)
	f.door.collected, f.door.rejected = nowhere{}, nowhere{}
	for _, c := range []struct {
		name, key, path string
		events          int
		most            float64
	}{
		{"one event of a server", "wk_demo", "track", 1, 6},
		{"50 events of a server", "wk_demo", "batch", 50, 9},
		{"one event of a browser", browserKey, "track", 1, 7},
		{"50 events of a browser", browserKey, "batch", 50, 59},
	} {
		body := []byte(benchItem)
		if c.events > 1 {
			body = []byte(batchOf(c.events))
		}
		like := call{
			ctx: t.Context(), ep: endpoints[c.path], path: "/v1/" + c.path, source: f.keys.find(c.key), received: now,
			client: client{ip: netip.MustParseAddr("203.0.113.7"), userAgent: browserAgent},
		}
		least := 1e9 // other goroutines allocate too, and with the race detector pools forget what they have
		for range 40 {
			least = min(least, testing.AllocsPerRun(1, func() {
				one, room := like, lease{b: f.budget}
				if a := f.taken(&one, body, &room); a.status != http.StatusOK {
					t.Fatal(a.status)
				}
			}))
		}
		assert.LessOrEqual(t, least, c.most, c.name)
	}
}
