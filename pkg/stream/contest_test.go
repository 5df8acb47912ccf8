package stream

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/weft-cdp/weft/pkg/topic"
)

// The contests: this package, its floor, and the clients that people use, in turns in one run, by CPU time of
// this process. The broker is another process, so its work does not count.

const (
	contestPartitions = 8
	contestRounds     = 7
	contestBatch      = 800 // what fits into one batch
	// brokerEnv makes the test binary a broker of a kind, see serveBroker.
	brokerEnv = "WEFT_TEST_BROKER"
)

// entrant is one way to do the work; the first of a contest is the floor.
type entrant struct {
	name   string
	events int // per turn
	start  func(b *testing.B) (run func(n int), stop func())
}

// contest lets entrants work in turns, forth and back, and reports CPU time per event and its ratio to the
// floor's: the median of the rounds.
func contest(b *testing.B, entrants []entrant) {
	b.Helper()
	for range b.N {
		times, ratios := make([][]float64, len(entrants)), make([][]float64, len(entrants))
		for round := range contestRounds {
			cost := make([]float64, len(entrants))
			for k := range entrants {
				i := k
				if round%2 == 1 {
					i = len(entrants) - 1 - k
				}
				e := entrants[i]
				run, stop := e.start(b)
				run(e.events / 10)
				before := cpuTime(b)
				run(e.events)
				cost[i] = float64((cpuTime(b) - before).Nanoseconds()) / float64(e.events)
				stop()
			}
			for i := range entrants {
				times[i], ratios[i] = append(times[i], cost[i]), append(ratios[i], cost[i]/cost[0])
			}
		}
		for i, e := range entrants {
			slices.Sort(times[i])
			slices.Sort(ratios[i])
			b.ReportMetric(times[i][contestRounds/2], e.name+"-ns/event")
			if i > 0 {
				b.ReportMetric(ratios[i][contestRounds/2], e.name+"/floor")
			}
			if e.name == "weft" && i > 1 {
				b.ReportMetric(times[i][contestRounds/2]/times[i-1][contestRounds/2], "weft/"+entrants[i-1].name) // the entrant before it is a floor too
			}
			b.Logf("%s: %.0f to %.0f ns per event, %.2f to %.2f of the floor", e.name, times[i][0], times[i][contestRounds-1], ratios[i][0], ratios[i][contestRounds-1])
		}
	}
	b.ReportMetric(0, "ns/op") // the turns say it
}

// cpuTime is what this process has used, of all threads, in user space and in the kernel.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// serveBroker is the other process: a broker until its standard input ends.
func serveBroker(kind string) {
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(contestPartitions, "t"), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"})}
	switch kind {
	case "plain":
		opts = append(opts, kfake.SyntheticFetch(kfake.SyntheticBatch{Batch: plainBatch(events(100))}))
	case "lz4":
		opts = append(opts, kfake.SyntheticFetch(kfake.SyntheticBatch{Batch: encoded(events(1000), time.UnixMilli(1_700_000_000_000))}))
	case "blackhole":
		opts = append(opts, kfake.BlackholeProduce())
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		panic(err)
	}
	defer cluster.Close()
	fmt.Println(strings.Join(cluster.ListenAddrs(), ","))
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// otherProcess starts a broker of a kind and returns its addresses.
func otherProcess(t testing.TB, kind string) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0]) //nolint:gosec // this binary
	cmd.Env = append(os.Environ(), brokerEnv+"="+kind)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close() // which ends it
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return strings.Split(strings.TrimSpace(line), ",")
}

// events are like those of a shop: some 575 bytes of JSON, of which ids, times and a few words differ, and the
// headers that Weft writes. The same ones each time.
func events(n int) []Record {
	rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same each time
	words := strings.Fields("jacket shirt shoes linen cotton blue black summer winter sale women men kids home garden")
	id := func() string {
		return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", rng.Uint32(), rng.IntN(1<<16), rng.IntN(1<<12), rng.IntN(1<<12), rng.Int64N(1<<48))
	}
	recs := make([]Record, n)
	for i := range recs {
		a, b, user, anonymous, message := words[rng.IntN(len(words))], words[rng.IntN(len(words))], id(), id(), id()
		value := fmt.Sprintf(`{"type":"track","event":"Product Viewed","messageId":"%s","anonymousId":"%s","userId":"%s",`+
			`"timestamp":"2026-11-22T%02d:%02d:%02d.%03dZ","context":{"page":{"path":"/%s/%s-%d","title":"%s %s","url":"https://shop.example/%s/%s-%d"},`+
			`"userAgent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36","locale":"en-GB","ip":"192.0.2.%d"},`+
			`"properties":{"product_id":"%d","sku":"%s-%d","category":"%s","name":"%s %s","price":%d.%02d,"currency":"GBP","quantity":%d}}`,
			message, anonymous, user, rng.IntN(24), rng.IntN(60), rng.IntN(60), rng.IntN(1000), a, b, rng.IntN(10_000), a, b, a, b, rng.IntN(10_000),
			rng.IntN(256), rng.IntN(100_000), a, rng.IntN(1000), b, a, b, rng.IntN(300), rng.IntN(100), 1+rng.IntN(3))
		recs[i] = Record{
			Key: []byte(user), Value: []byte(value),
			Headers: []topic.Header{
				{Key: topic.HeaderSchema, Value: []byte("1")}, {Key: topic.HeaderSource, Value: []byte("shop")},
				{Key: topic.HeaderBrand, Value: []byte("main")}, {Key: topic.HeaderMessageID, Value: []byte(message)},
				{Key: topic.HeaderReceivedAt, Value: fmt.Append(nil, 1_795_344_202_696+i)}, {Key: topic.HeaderTrust, Value: []byte("untrusted")},
			},
		}
	}
	return recs
}

// plainBatch is an uncompressed batch, as of a producer without compression.
func plainBatch(recs []Record) []byte {
	b := shaped(recs[:1], shape{producer: -1})[:batchHeader]
	for i := range recs {
		b = appendRecord(b, &recs[i], i)
	}
	putLengths(b, len(recs))
	b[atAttributes+1] = 0
	return sealed(b)
}
