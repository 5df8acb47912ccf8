//go:build integration

package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/weft-cdp/weft/pkg/topic"
)

// The sizes of TestPipeline: small where it is one test of many, larger in 'make bench-pipeline'.
var (
	pipelineEvents = flag.Int("pipeline.events", 10_000, "events that TestPipeline drains at full speed")
	pipelineRate   = flag.Int("pipeline.rate", 200, "events per second of its latency part")
	pipelineFor    = flag.Duration("pipeline.for", 5*time.Second, "length of its latency part")
)

const (
	// perRequest is how many events an SDK's batch holds: Segment's servers send 20 to 100.
	perRequest = 50
	// senders is how many connections send at full speed: enough to keep two processors busy.
	senders = 4
	// drainLimit bounds the way of all events to ClickHouse.
	drainLimit = 10 * time.Minute
)

// TestPipeline sends events through the HTTP door and the five services, as processes, into ClickHouse: first as fast
// as the door takes them, then at a steady rate. Every event must arrive once. It prints what each process cost per
// event, what the servers cost, and how long each part of the way took; it judges no time.
func TestPipeline(t *testing.T) {
	d := deploy(t, options{})
	d.fullSpeed(*pipelineEvents)
	d.steady(*pipelineEvents, *pipelineRate, *pipelineFor)
}

// fullSpeed drains n events and prints CPU time per event.
func (d *deployment) fullSpeed(n int) {
	pids := d.measured()
	before := cpuTimes(d.t, pids)
	begun := time.Now()
	var group sync.WaitGroup
	for s := range senders {
		group.Go(func() {
			g := newGenerator(uint64(s))
			for range n / perRequest / senders {
				d.sendBatch(g.batch(perRequest))
			}
		})
	}
	group.Wait()
	n = n / perRequest / senders * perRequest * senders
	accepted := time.Since(begun)
	d.awaitEvents(n)
	took := time.Since(begun)
	after := cpuTimes(d.t, pids)

	rows := [][]string{}
	var ours, all time.Duration
	for _, p := range pids {
		used := after[p.name] - before[p.name]
		all += used
		if _, own := d.processes[p.name]; own {
			ours += used
		}
		memory := ""
		if own, ok := d.processes[p.name]; ok {
			memory = fmt.Sprintf("%d MiB", own.peakMemory()>>20)
		}
		rows = append(rows, []string{p.name, perEvent(used, n), memory})
	}
	rows = append(rows, []string{"Weft", perEvent(ours, n), ""}, []string{"all", perEvent(all, n), ""})
	d.t.Logf("%d events: the door took %.0f/s, the whole pipeline was through at %.0f/s\n%s", n,
		float64(n)/accepted.Seconds(), float64(n)/took.Seconds(), table([]string{"process", "CPU µs per event", "peak memory"}, rows))
}

// steady sends events at a rate, open loop, after `before` of them, and prints how long they took.
func (d *deployment) steady(before, rate int, length time.Duration) {
	g := newGenerator(senders)
	every := time.Second / time.Duration(rate)
	pings := make(chan []time.Duration, 1)
	begun := time.Now()
	go func() { pings <- d.ping(begun.Add(length)) }()
	var group sync.WaitGroup
	sent := 0
	for ; ; sent++ {
		at := begun.Add(time.Duration(sent) * every)
		if at.After(begun.Add(length)) {
			break
		}
		time.Sleep(time.Until(at)) // the pace is the subject, not a wait for something
		body := g.batch(1)
		group.Go(func() { d.sendBatch(body) })
	}
	group.Wait()
	since := begun.UnixMilli()
	before = before / perRequest / senders * perRequest * senders
	d.awaitEvents(before + sent)

	rows := [][]string{{"Kafka: produce and fetch, one record", quantiles(<-pings)}}
	for _, name := range []string{"events.collected", "events.identified", "profiles.changed"} {
		rows = append(rows, []string{"door to " + name, quantiles(d.latencies(name, since))})
	}
	var stored []time.Duration
	for _, row := range d.rows("SELECT toUnixTimestamp64Milli(inserted_at) - toUnixTimestamp64Milli(received_at) FROM events WHERE received_at >= fromUnixTimestamp64Milli(%d, 'UTC')", since) {
		ms, err := strconv.Atoi(row[0])
		require.NoError(d.t, err)
		stored = append(stored, time.Duration(ms)*time.Millisecond)
	}
	require.Len(d.t, stored, sent)
	rows = append(rows, []string{"door to ClickHouse's insert", quantiles(stored)})
	d.t.Logf("%d events at %d/s\n%s", sent, rate, table([]string{"from, to", "p50, p99, max"}, rows))
}

// awaitEvents waits until ClickHouse has n events, and none twice, and every stage is through with them.
func (d *deployment) awaitEvents(n int) {
	d.t.Helper()
	eventually(d.t, drainLimit, "all events are in ClickHouse", func() error {
		return want("events", n, d.number("SELECT count() FROM events"))
	})
	for _, stage := range []string{topic.StageBuilder, topic.StageDecide} {
		eventually(d.t, drainLimit, stage+" is through", func() error {
			return want("records to do", 0, d.kafka.lag(d.prefix+stage+"."+d.prefix+"events.identified"))
		})
	}
	require.Equal(d.t, n, d.number("SELECT uniqExact(message_id) FROM events"))
}

// latencies are, for the records of a topic that the door took from a time on, the times from there to the topic.
func (d *deployment) latencies(name string, since int64) []time.Duration {
	d.t.Helper()
	ends, err := d.kafka.admin.ListEndOffsets(d.t.Context(), d.prefix+name)
	require.NoError(d.t, err)
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	c, err := kgo.NewClient(kgo.SeedBrokers(shared.kafka), kgo.ConsumeTopics(d.prefix+name), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	require.NoError(d.t, err)
	defer c.Close()
	var out []time.Duration
	for len(left) > 0 {
		fetches := c.PollFetches(d.t.Context())
		require.NoError(d.t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			if at, ok := received(r); ok && at >= since {
				out = append(out, time.Duration(r.Timestamp.UnixMilli()-at)*time.Millisecond)
			}
			if r.Offset >= left[r.Partition]-1 {
				delete(left, r.Partition)
			}
		})
	}
	return out
}

// received is when the door took what led to a record.
func received(r *kgo.Record) (int64, bool) {
	for _, h := range r.Headers {
		if h.Key == "weft-received-at" {
			ms, err := strconv.ParseInt(string(h.Value), 10, 64)
			return ms, err == nil
		}
	}
	if _, rest, ok := strings.Cut(string(r.Value), `"updatedAt":"`); ok { // profiles.changed: of the newest event
		if at, err := time.Parse(time.RFC3339Nano, rest[:strings.IndexByte(rest, '"')]); err == nil {
			return at.UnixMilli(), true
		}
	}
	return 0, false
}

// ping measures Kafka itself: one record written and read back, again and again until a time.
func (d *deployment) ping(until time.Time) []time.Duration {
	name := "e2e." + d.id + ".ping"
	d.kafka.createTopic(name, 1)
	c, err := kgo.NewClient(kgo.SeedBrokers(shared.kafka), kgo.ConsumeTopics(name), kgo.ProducerLinger(0))
	if err != nil {
		return nil
	}
	defer c.Close()
	var out []time.Duration
	for time.Now().Before(until) {
		begun := time.Now()
		if err := c.ProduceSync(d.t.Context(), &kgo.Record{Topic: name, Value: []byte("ping")}).FirstErr(); err != nil {
			return nil
		}
		if c.PollFetches(d.t.Context()).NumRecords() > 0 {
			out = append(out, time.Since(begun))
		}
		time.Sleep(20 * time.Millisecond) // a light load beside what is measured
	}
	return out
}

// quantiles are the median, the 99th percentile and the maximum.
func quantiles(ds []time.Duration) string {
	if len(ds) == 0 {
		return "none"
	}
	slices.Sort(ds)
	return fmt.Sprintf("%.1f, %.1f, %.1f ms", ms(ds[len(ds)/2]), ms(ds[len(ds)*99/100]), ms(ds[len(ds)-1]))
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func perEvent(used time.Duration, n int) string {
	return fmt.Sprintf("%.2f", float64(used.Microseconds())/float64(n))
}

// sendBatch sends a body to the door, which must take it. Safe for concurrent use.
func (d *deployment) sendBatch(body string) {
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.door+"/v1/batch", strings.NewReader(body))
	if err != nil {
		d.t.Error(err)
		return
	}
	req.SetBasicAuth(keyWeb, "")
	resp, err := doorClient.Do(req)
	if err != nil {
		d.t.Error(err)
		return
	}
	defer resp.Body.Close() //nolint:errcheck // not read
	if resp.StatusCode != http.StatusOK {
		d.t.Errorf("the door answers %d", resp.StatusCode)
	}
}

// doorClient keeps its connections open, as SDKs do.
var doorClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// generator writes batches of a shop's events, 600 to 900 bytes each: a tenth of the visitors is new, four fifths of the
// events are page views, the rest carts and some orders.
type generator struct {
	r      *rand.Rand
	id     uint64
	people int
}

func newGenerator(id uint64) *generator {
	return &generator{r: rand.New(rand.NewPCG(id, 1)), id: id, people: 1} //nolint:gosec // traffic, not a secret
}

func (g *generator) batch(n int) string {
	var b strings.Builder
	b.WriteString(`{"batch":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		if g.r.IntN(10) == 0 {
			g.people++
		}
		who := g.r.IntN(g.people)
		now := stamp(time.Now())
		fmt.Fprintf(&b, `{"messageId":%q,"anonymousId":"a-%d-%d","timestamp":%q,`, uuid.NewString(), g.id, who, now)
		b.WriteString(`"context":{"ip":"203.0.113.7","locale":"de-AT","userAgent":"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36","library":{"name":"analytics.js","version":"next-1.70.0"},"page":{"path":"/shoes/red","referrer":"https://www.example.com/","search":"?utm_source=mail","title":"Red shoes","url":"https://shop.example.com/shoes/red?utm_source=mail"},"campaign":{"source":"mail","medium":"email","name":"spring"}},`)
		switch k := g.r.IntN(20); {
		case k == 0:
			fmt.Fprintf(&b, `"type":"identify","userId":"u-%d-%d","traits":{"email":"u%d.%d@example.com","firstName":"Anna"}}`, g.id, who, g.id, who)
		case k == 1:
			fmt.Fprintf(&b, `"type":"track","event":"Order Completed","properties":{"order_id":"o-%s","total":39.98,"currency":"EUR","products":[{"product_id":"p%d","price":19.99,"quantity":2}]}}`, uuid.NewString(), g.r.IntN(50))
		case k < 4:
			fmt.Fprintf(&b, `"type":"track","event":"Product Added","properties":{"cart_id":"c-%d-%d","product_id":"p%d","name":"Red shoes","price":19.99,"quantity":1,"currency":"EUR"}}`, g.id, who, g.r.IntN(50))
		default:
			b.WriteString(`"type":"page","name":"Shoes","properties":{"category":"shoes","path":"/shoes/red","title":"Red shoes"}}`)
		}
	}
	fmt.Fprintf(&b, `],"sentAt":%q}`, stamp(time.Now()))
	return b.String()
}
