package collector

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	latencyRounds  = 5
	latencySeconds = 4
	latencyConns   = 64 // as many requests may wait for an answer; more wait for a connection, and that counts
	// pingPause is the time between two raw produce requests, which are sent beside the events: enough for a 99th percentile,
	// and next to no load.
	pingPause = 4 * time.Millisecond
)

// serveLatency does what each line of its standard input says: address, requests a second, address of the broker and a
// produce request in hexadecimal digits. For latencySeconds it sends events, and beside them the produce request, each
// at its time whether or not earlier ones have been answered, and counts from that time on.
func serveLatency() {
	in := bufio.NewReader(os.Stdin)
	for {
		var address, broker, text string
		var rate int
		if _, err := fmt.Fscanln(in, &address, &rate, &broker, &text); err != nil {
			return
		}
		frame, err := hex.DecodeString(text)
		if err != nil {
			panic(err)
		}
		var pings, events []time.Duration
		var both sync.WaitGroup
		both.Go(func() { pings = onTime(pingPause, 1, func() func() { return pinger(broker, frame) }) })
		both.Go(func() {
			events = onTime(time.Second/time.Duration(rate), latencyConns, func() func() { return poster(address) })
		})
		both.Wait()
		fmt.Println(percentile(events, 50).Nanoseconds(), percentile(events, 99).Nanoseconds(), percentile(pings, 50).Nanoseconds(), percentile(pings, 99).Nanoseconds())
	}
}

// onTime calls one of so many functions that open makes every pause, and returns how long after its time each was done.
func onTime(pause time.Duration, workers int, open func() func()) []time.Duration {
	n := int(latencySeconds * time.Second / pause)
	due := make(chan int, n)
	took := make([]time.Duration, n)
	ready := make(chan struct{})
	var began time.Time
	var done sync.WaitGroup
	for range workers {
		do := open()
		done.Go(func() {
			<-ready
			for i := range due {
				do()
				took[i] = time.Since(began.Add(time.Duration(i) * pause))
			}
		})
	}
	began = time.Now()
	close(ready)
	for i := range n {
		time.Sleep(time.Until(began.Add(time.Duration(i) * pause)))
		due <- i
	}
	close(due)
	done.Wait()
	return took
}

func percentile(took []time.Duration, p int) time.Duration {
	slices.Sort(took)
	return took[len(took)*p/100]
}

// poster sends one event.
func poster(address string) func() {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		panic(err)
	}
	answers, request := bufio.NewReader(conn), floorRequest(fromServer, 1)
	return func() {
		if _, err := conn.Write(request); err != nil {
			panic(err)
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			panic(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			panic(resp.Status)
		}
	}
}

// pinger sends one produce request that is ready.
func pinger(broker string, frame []byte) func() {
	conn, err := net.Dial("tcp", broker)
	if err != nil {
		panic(err)
	}
	answer := make([]byte, 4096)
	return func() {
		if _, err := conn.Write(frame); err != nil {
			panic(err)
		}
		if _, err := io.ReadFull(conn, answer[:4]); err != nil {
			panic(err)
		}
		if _, err := io.ReadFull(conn, answer[:binary.BigEndian.Uint32(answer)]); err != nil {
			panic(err)
		}
	}
}

// capacity is how many requests a second a door takes from senders that wait for each answer: the least of a few turns, since
// others may be busy on the machine.
func capacity(door contender) float64 {
	least := math.Inf(1)
	for range 3 {
		began := time.Now()
		door.run(100)
		least = min(least, float64(door.events)/time.Since(began).Seconds())
	}
	return least
}

// BenchmarkDoorLatency is how long an accepted event takes at half of the load that the door can take, beside a raw
// produce request of one event to the same broker in the same seconds. Sender and broker are processes of their own, on
// the same cores.
func BenchmarkDoorLatency(b *testing.B) {
	load, latency, broker := startRole(b, "load"), startRole(b, "latency"), startRole(b, "broker")
	brokers := strings.Split(broker.line(b), ",")
	wire := &wireNotes{}
	kept := &memory{}
	f := newFixture(b)
	f.door.collected = kept
	require.Equal(b, http.StatusOK, f.do(http.MethodPost, "/v1/track", basic("wk_demo"), benchItem).Code)
	require.NoError(b, batcherTo(b, brokers, wire).SendAll(b.Context(), kept.take()))

	batcher := batcherTo(b, brokers, nil)
	door := overLoopback(b, load, doorServer(b, batcher, nowhere{}), "acknowledged", fromServer, 1, singles)
	door.run(100)
	var rates, medians, p99s, pings, ratios []float64
	for range latencyRounds {
		half := capacity(door) / 2
		_, err := fmt.Fprintf(latency.in, "%s %d %s %x\n", door.address, int(half), brokers[0], wire.produce)
		require.NoError(b, err)
		var median, p99, ping, ping99 float64
		_, err = fmt.Sscan(latency.line(b), &median, &p99, &ping, &ping99)
		require.NoError(b, err)
		rates, medians, p99s, pings, ratios = append(rates, half), append(medians, median/1e3), append(p99s, p99/1e3), append(pings, ping99/1e3), append(ratios, p99/ping99)
		b.Logf("%.0f requests/s: median %.0f, p99 %.0f us; raw produce %.0f, %.0f us", half, median/1e3, p99/1e3, ping/1e3, ping99/1e3)
	}
	spread(b, "requests/s", rates)
	spread(b, "median-us", medians)
	spread(b, "p99-us", p99s)
	spread(b, "produce-p99-us", pings)
	spread(b, "p99/produce-p99", ratios)
	b.ReportMetric(0, "ns/op") // the rounds say it
}
