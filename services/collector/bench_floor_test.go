package collector

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/valyala/fastjson"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/stream"
)

// The door beside its floors, in turns in one run, by CPU time of this process alone: who sends, and the broker, are
// processes of their own.

const (
	// roleEnv makes the test binary the other end of a benchmark, see serveRole.
	roleEnv = "WEFT_COLLECTOR_BENCH"

	floorRounds  = 7
	floorSenders = 16   // connections, kept alive
	floorBatch   = 800  // events of a produce request that is ready
	singles      = 4000 // requests of a turn
	batches      = 1000
	batchEvents  = 50
)

// serveRole is the other process, until its standard input ends.
func serveRole(role string) {
	switch role {
	case "load":
		serveLoad()
		return
	case "latency":
		serveLatency()
		return
	case "pace":
		servePace()
		return
	case "abuse":
		serveAbuse()
		return
	}
	set := config.Defaults().Topics.Set()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(int32(set.Partitions), set.EventsCollected(), set.EventsRejected()), //nolint:gosec // a few
		kfake.BlackholeProduce())
	if err != nil {
		panic(err)
	}
	defer cluster.Close()
	fmt.Println(strings.Join(cluster.ListenAddrs(), ","))
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// serveLoad sends what each line of its standard input says: address, kind of source, events of a request, requests.
func serveLoad() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var address, kind string
		var events, n int
		if _, err := fmt.Sscan(in.Text(), &address, &kind, &events, &n); err != nil {
			panic(err)
		}
		request := floorRequest(kind, events)
		var senders sync.WaitGroup
		for range floorSenders {
			senders.Go(func() { sendRequests(address, request, n/floorSenders) })
		}
		senders.Wait()
		fmt.Println("sent")
	}
}

func sendRequests(address string, request []byte, n int) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		panic(err)
	}
	defer func() { _ = conn.Close() }()
	answers := bufio.NewReader(conn)
	for range n {
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

// The two kinds of sources: events of a server are stored as they come, those of a browser get its address, user agent,
// system and device.
const (
	fromServer  = config.KindServer
	fromBrowser = config.KindBrowser

	browserKey   = "wk_pages"
	browserAgent = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36"
)

// floorRequest is a request as SDKs of that kind of source write them, with so many events, each of another person.
func floorRequest(kind string, events int) []byte {
	path, body := "/v1/track", benchItem
	if events > 1 {
		path, body = "/v1/batch", peopleBatch(events)
	}
	key, agent, more := "wk_demo", "analytics-node/3.1.0", ""
	if kind == fromBrowser {
		key, agent, more = browserKey, browserAgent, "Origin: https://shop.example\r\nReferer: https://shop.example/\r\n"
	}
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: %s\r\nContent-Type: application/json\r\n%s"+
		"Accept: */*\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n%s", path, agent, more, basic(key), len(body), body)
}

// withBrowsers adds a source of that kind.
func withBrowsers(c *config.Collector) {
	c.Sources = append(c.Sources, config.Source{Name: "pages", Kind: config.KindBrowser, WriteKey: browserKey, Brand: "shop"})
}

func peopleBatch(events int) string {
	items := make([]string, events)
	for i := range items {
		items[i] = strings.NewReplacer("sample-web", fmt.Sprintf("sample-%03d", i), "2982bdf607aa", fmt.Sprintf("%012x", i*7919),
			"14.325Z", fmt.Sprintf("14.%03dZ", i), "SKU-507", fmt.Sprintf("SKU-%03d", i*31%997)).Replace(benchItem)
	}
	return `{"batch":[` + strings.Join(items, ",") + `],"writeKey":"wk_demo","sentAt":"2026-11-22T06:59:15Z"}`
}

// other is a process of that role, its lines read one by one.
type other struct {
	in  io.WriteCloser
	out *bufio.Reader
}

func startRole(b *testing.B, role string) *other {
	b.Helper()
	cmd := exec.Command(os.Args[0]) //nolint:gosec // this binary
	cmd.Env, cmd.Stderr = append(os.Environ(), roleEnv+"="+role), os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(b, err)
	out, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		_ = in.Close() // which ends it
		_ = cmd.Wait()
	})
	return &other{in, bufio.NewReader(out)}
}

func (o *other) line(b *testing.B) string {
	b.Helper()
	text, err := o.out.ReadString('\n')
	require.NoError(b, err)
	return strings.TrimSpace(text)
}

// contender is one way to spend CPU on events; the same number of events each turn.
type contender struct {
	name   string
	events int
	run    func(share int) // so many hundredths of the events

	address string // of a server
}

// overLoopback serves handler and has the load process send to it.
func overLoopback(b *testing.B, load *other, server *http.Server, name, kind string, events, requests int) contender {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	b.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return contender{name: name, events: events * requests, address: l.Addr().String(), run: func(share int) {
		_, err := fmt.Fprintf(load.in, "%s %s %d %d\n", l.Addr(), kind, events, requests*share/100)
		require.NoError(b, err)
		require.Equal(b, "sent", load.line(b))
	}}
}

func bareSink() *http.Server {
	return &http.Server{ReadHeaderTimeout: headerTimeout, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"success":true}`)
	})}
}

// doorServer is the door as the service runs it, in front of these two.
func doorServer(b *testing.B, collected, rejected sender) *http.Server {
	b.Helper()
	f := newFixture(b, withBrowsers)
	f.door.collected, f.door.rejected = collected, rejected
	return serverOf(b, f)
}

// serverOf serves a fixture's door as the service does.
func serverOf(b testing.TB, f *fixture) *http.Server {
	b.Helper()
	s := &Service{cfg: settings(b), deps: Deps{Log: zap.NewNop()}, door: f.door}
	server, err := s.server()
	require.NoError(b, err)
	return server
}

// batcherTo is a batcher as the service has it, with what its client writes noted in wire.
func batcherTo(b *testing.B, brokers []string, wire *wireNotes) *stream.Batcher {
	b.Helper()
	kafka := config.Defaults().Kafka
	kafka.Brokers = brokers
	client, err := stream.New(kafka, zap.NewNop(), stream.WithDial(func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil || wire == nil {
			return conn, err
		}
		return noted{conn, wire}, nil
	}))
	require.NoError(b, err)
	b.Cleanup(client.Close)
	set := config.Defaults().Topics.Set()
	batcher := client.NewBatcher(set.EventsCollected(), set.Partitions, stream.BatcherOptions{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = batcher.Run(ctx)
	}()
	b.Cleanup(func() {
		cancel()
		<-done
	})
	return batcher
}

// wireNotes keeps the largest produce request that was written.
type wireNotes struct {
	mu      sync.Mutex
	produce []byte
}

type noted struct {
	net.Conn
	wire *wireNotes
}

func (n noted) Write(p []byte) (int, error) {
	n.wire.mu.Lock()
	if len(p) > 8 && binary.BigEndian.Uint16(p[4:]) == 0 && len(p) > len(n.wire.produce) { // the key of Produce
		n.wire.produce = bytes.Clone(p)
	}
	n.wire.mu.Unlock()
	return n.Conn.Write(p)
}

// readyProduce is the floor F3: one produce request of many events that is ready, as Weft makes them, sent over and over.
func readyProduce(b *testing.B, brokers []string, recs []stream.Record) contender {
	b.Helper()
	wire := &wireNotes{}
	batcher := batcherTo(b, brokers, wire)
	require.NoError(b, batcher.SendAll(context.Background(), recs))
	conn, err := net.Dial("tcp", brokers[0])
	require.NoError(b, err)
	b.Cleanup(func() { _ = conn.Close() })
	frame := wire.produce
	require.Equal(b, len(frame)-4, int(binary.BigEndian.Uint32(frame)), "the whole request in one write")
	answer := make([]byte, 4096)
	events := batches * batchEvents
	return contender{name: "F3", events: events, run: func(share int) {
		for sent := 0; sent < events*share/100; sent += len(recs) {
			_, err := conn.Write(frame)
			require.NoError(b, err)
			_, err = io.ReadFull(conn, answer[:4])
			require.NoError(b, err)
			_, err = io.ReadFull(conn, answer[:binary.BigEndian.Uint32(answer)])
			require.NoError(b, err)
		}
	}}
}

// sevenFields is the floor F6: to validate an event and read seven fields of it, with a parser that is used again.
func sevenFields(b *testing.B) contender {
	b.Helper()
	paths := [][]string{{"type"}, {"event"}, {"anonymousId"}, {"messageId"}, {"properties", "product_id"}, {"context", "library"}, {"timestamp"}}
	events := batches * batchEvents
	return contender{name: "F6", events: events, run: func(share int) {
		var p fastjson.Parser
		for range events * share / 100 {
			v, err := p.Parse(benchItem)
			require.NoError(b, err)
			for _, path := range paths {
				if v.Get(path...) == nil {
					b.Fatal(path)
				}
			}
		}
	}}
}

// only names the contender that works alone, for a profile of it (-cpuprofile, -memprofile): no comparison then.
var only = flag.String("door.only", "", "let only this contender of BenchmarkDoor work")

// inTurns lets all work, forth and back, and returns what an event cost each, round by round.
func inTurns(b *testing.B, list []contender) [][]float64 {
	b.Helper()
	costs := make([][]float64, floorRounds)
	for round := range costs {
		costs[round] = make([]float64, len(list))
		for k := range list {
			i := k
			if round%2 == 1 {
				i = len(list) - 1 - k
			}
			list[i].run(10)
			before := cpuTime(b)
			list[i].run(100)
			costs[round][i] = float64((cpuTime(b) - before).Nanoseconds()) / float64(list[i].events)
		}
	}
	return costs
}

func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// spread reports the median of values, and logs the smallest and the largest.
func spread(b *testing.B, unit string, values []float64) {
	b.Helper()
	slices.Sort(values)
	b.ReportMetric(values[len(values)/2], unit)
	b.Logf("%s: %.2f (%.2f to %.2f)", unit, values[len(values)/2], values[0], values[len(values)-1])
}

// compare reports what an event costs each of list, and what some cost for each unit that the floors cost.
func compare(b *testing.B, list []contender, floors int) {
	b.Helper()
	if *only != "" {
		list = slices.DeleteFunc(list, func(c contender) bool { return c.name != *only })
		floors = 0
	}
	costs := inTurns(b, list)
	column := func(f func(row []float64) float64) (out []float64) {
		for _, row := range costs {
			out = append(out, f(row))
		}
		return out
	}
	for i, c := range list {
		spread(b, c.name+"-ns/event", column(func(row []float64) float64 { return row[i] }))
		if i >= floors && floors > 0 {
			spread(b, c.name+"/floors", column(func(row []float64) float64 {
				sum := 0.0
				for _, floor := range row[:floors] {
					sum += floor
				}
				return row[i] / sum
			}))
		}
	}
	b.ReportMetric(0, "ns/op") // the turns say it
}

// BenchmarkDoor is the door beside what can not be avoided. One event: F1, a handler that reads and answers. A batch: F1, F6
// and F3 together. "door" answers without Kafka, "acknowledged" only once a broker that keeps nothing has answered; both take
// events of a server. "browser" is the door for those of browsers, which it enriches.
func BenchmarkDoor(b *testing.B) {
	load, broker := startRole(b, "load"), startRole(b, "broker")
	brokers := strings.Split(broker.line(b), ",")
	batcher := batcherTo(b, brokers, nil)
	doors := func(b *testing.B, events, requests int) []contender {
		return []contender{
			overLoopback(b, load, doorServer(b, nowhere{}, nowhere{}), "door", fromServer, events, requests),
			overLoopback(b, load, doorServer(b, nowhere{}, nowhere{}), "browser", fromBrowser, events, requests),
			overLoopback(b, load, doorServer(b, batcher, nowhere{}), "acknowledged", fromServer, events, requests),
		}
	}
	b.Run("1 event", func(b *testing.B) {
		floor := overLoopback(b, load, bareSink(), "F1", fromServer, 1, singles)
		compare(b, append([]contender{floor}, doors(b, 1, singles)...), 1)
	})
	b.Run("batch of 50", func(b *testing.B) {
		kept := &memory{}
		f := newFixture(b)
		f.door.collected = kept
		for len(kept.recs) < floorBatch {
			require.Equal(b, http.StatusOK, f.do(http.MethodPost, "/v1/batch", basic("wk_demo"), peopleBatch(batchEvents)).Code)
		}
		ready := kept.take()[:floorBatch]
		for i := range ready {
			ready[i].Key = []byte("one partition")
		}
		compare(b, append([]contender{
			overLoopback(b, load, bareSink(), "F1", fromServer, batchEvents, batches),
			sevenFields(b),
			readyProduce(b, brokers, ready),
		}, doors(b, batchEvents, batches)...), 3)
	})
}
