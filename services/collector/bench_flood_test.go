package collector

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
)

// One source floods the door at ten times its limit, the other sends as always: what does the other notice? Each sender is a
// process of its own, and sends by the clock: a request that has to wait counts from when it was due.

const (
	floodRounds  = 7
	floodFor     = 3 * time.Second
	floodLimit   = 200 // events a second that the flooding source may send
	floodFactor  = 10
	calmRequests = 200 // a second, of the other
	paceConns    = 32
)

// pace is what one sender is to do: a line of the process' standard input.
type pace struct {
	address, key      string
	events, perSecond int // of a request; requests
}

// servePace sends what each line of its standard input says, and answers with what came of it: requests that were answered
// 200 and otherwise, and the median and the 99th percentile of their times in microseconds.
func servePace() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var p pace
		if _, err := fmt.Sscan(in.Text(), &p.address, &p.key, &p.events, &p.perSecond); err != nil {
			panic(err)
		}
		took, others := p.send()
		slices.Sort(took)
		if len(took) == 0 {
			took = []time.Duration{0}
		}
		fmt.Println(len(took), others, took[len(took)/2].Microseconds(), took[len(took)*99/100].Microseconds())
	}
}

// send sends for floodFor. It tells how long those took that were answered 200, and how many were not.
func (p pace) send() (took []time.Duration, others int) {
	request := bytes.ReplaceAll(floorRequest(fromServer, p.events), []byte(basic("wk_demo")), []byte(basic(p.key)))
	request = bytes.ReplaceAll(request, []byte(`"writeKey":"wk_demo"`), []byte(`"writeKey":"wk_none"`)) // as long; the header counts
	due := make(chan time.Time, p.perSecond*int(floodFor/time.Second)+1)
	var mu sync.Mutex
	var senders sync.WaitGroup
	for range paceConns {
		conn, err := net.Dial("tcp", p.address)
		if err != nil {
			panic(err)
		}
		senders.Go(func() {
			defer func() { _ = conn.Close() }()
			answers := bufio.NewReader(conn)
			for at := range due {
				status := roundTrip(conn, answers, request)
				mu.Lock()
				if status == http.StatusOK {
					took = append(took, time.Since(at))
				} else {
					others++
				}
				mu.Unlock()
			}
		})
	}
	began, gap := time.Now(), time.Second/time.Duration(p.perSecond)
	for at := began; at.Before(began.Add(floodFor)); at = at.Add(gap) {
		time.Sleep(time.Until(at))
		due <- at
	}
	close(due)
	senders.Wait()
	return took, others
}

func roundTrip(conn net.Conn, answers *bufio.Reader, request []byte) int {
	if _, err := conn.Write(request); err != nil {
		panic(err)
	}
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		panic(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

// serveDoor opens a port for a fixture's door.
func serveDoor(b testing.TB, f *fixture) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	server, done := serverOf(b, f), make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	b.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return l.Addr().String()
}

// BenchmarkFlood prints how many times as long the 99th percentile of a source's requests is while another one floods the
// door. Kafka is the one of WEFT_TEST_KAFKA, or one in a process of its own.
func BenchmarkFlood(b *testing.B) {
	calm, flood := startRole(b, "pace"), startRole(b, "pace")
	brokers := []string{os.Getenv("WEFT_TEST_KAFKA")}
	if brokers[0] == "" {
		brokers = strings.Split(startRole(b, "broker").line(b), ",")
	}
	batcher := batcherTo(b, brokers, nil)
	for _, c := range []struct {
		name          string
		events, limit int
	}{{"one event a request", 1, floodLimit}, {"batches of 50", batchEvents, floodLimit * batchEvents / 4}} {
		b.Run(c.name, func(b *testing.B) {
			f := newFixture(b, func(k *config.Collector) {
				k.Sources[0].Rate = config.SourceRate{EventsPerSecond: c.limit}
			})
			f.door.collected, f.door.rejected, f.intake.now = batcher, nowhere{}, time.Now // the rate goes by it
			address := serveDoor(b, f)
			start := func(o *other, key string, events, perSecond int) func() (taken, refused int, p50, p99 float64) {
				_, err := fmt.Fprintln(o.in, address, key, events, perSecond)
				require.NoError(b, err)
				return func() (taken, refused int, p50, p99 float64) {
					_, err := fmt.Sscan(o.line(b), &taken, &refused, &p50, &p99)
					require.NoError(b, err)
					return taken, refused, p50 / 1000, p99 / 1000
				}
			}
			start(calm, "wk_server", 1, calmRequests)() // warm
			var without, with, ratio []float64
			for range floodRounds {
				_, _, _, alone := start(calm, "wk_server", 1, calmRequests)()
				flooding := start(flood, "wk_demo", c.events, floodFactor*c.limit/c.events)
				taken, others, _, beside := start(calm, "wk_server", 1, calmRequests)()
				let, refused, _, _ := flooding()
				require.Zero(b, others, "the other source is never refused")
				require.Positive(b, refused)
				b.Logf("p99 %.2f ms alone, %.2f ms beside the flood (%d requests); of the flood %d were taken, %d refused", alone, beside, taken, let, refused)
				without, with, ratio = append(without, alone), append(with, beside), append(ratio, beside/alone)
			}
			spread(b, "p99-alone-ms", without)
			spread(b, "p99-beside-ms", with)
			spread(b, "ratio", ratio)
			b.ReportMetric(0, "ns/op")
		})
	}
}
