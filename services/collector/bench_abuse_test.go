package collector

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What a process of its own does to the door, by the first word of a line: hold so many connections, or send so many
// bombs at once. It says a line when all are there, or answered.
const (
	abuseHeaders = "headers" // of which the second half never comes
	abuseBodies  = "bodies"  // announced as 4 MB, of which one byte comes
	abuseBombs   = "bombs"   // a gigabyte each, packed
)

const (
	slowConnections = 2000
	bombsAtOnce     = 200
	sampleEvery     = 2 * time.Millisecond
)

// serveAbuse does what each line of its standard input says: address, kind, how many.
func serveAbuse() {
	in := bufio.NewScanner(os.Stdin)
	var held []net.Conn
	for in.Scan() {
		var address, kind string
		var n int
		if _, err := fmt.Sscan(in.Text(), &address, &kind, &n); err != nil {
			panic(err)
		}
		for _, c := range held {
			_ = c.Close()
		}
		held = held[:0]
		says := []byte("POST /v1/batch HTTP/1.1\r\nHost: x\r\nAuthorization: " + basic("wk_demo") + "\r\n")
		switch kind {
		case abuseHeaders:
		case abuseBodies:
			says = append(says, "Content-Length: 4000000\r\n\r\n{"...)
		case abuseBombs:
			sendBombs(address, says, n)
			fmt.Println("answered")
			continue
		}
		for range n {
			c, err := net.Dial("tcp", address)
			if err == nil {
				_, err = c.Write(says)
			}
			if err != nil {
				panic(err)
			}
			held = append(held, c)
		}
		fmt.Println("open")
	}
}

func sendBombs(address string, head []byte, n int) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	blanks := bytes.Repeat([]byte(" "), 1<<20)
	for range 1 << 10 {
		_, _ = z.Write(blanks) // into memory
	}
	_ = z.Close()
	request := append(fmt.Appendf(head, "Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n", packed.Len()), packed.Bytes()...)
	var senders sync.WaitGroup
	for range n {
		senders.Go(func() {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				panic(err)
			}
			defer func() { _ = conn.Close() }()
			go func() { _, _ = conn.Write(request) }() // the door need not read all of it
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				return // cut off while it wrote
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusServiceUnavailable {
				panic(resp.Status)
			}
		})
	}
	senders.Wait()
}

// residentMiB is this process' memory as the kernel has it.
func residentMiB(t testing.TB) float64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		var kb float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kb); n == 1 {
			return kb / 1024
		}
	}
	t.Fatal("/proc/self/status does not say VmRSS")
	return 0
}

// BenchmarkAbuse prints what hostile senders cost a door that serves another source meanwhile: memory (the heap in use, and
// all of the process), and the 99th percentile of the other source's requests.
func BenchmarkAbuse(b *testing.B) {
	calm, hostile := startRole(b, "pace"), startRole(b, "abuse")
	for _, c := range []struct {
		kind string
		n    int
	}{{"none", 0}, {abuseHeaders, slowConnections}, {abuseBodies, slowConnections}, {abuseBombs, bombsAtOnce}} {
		b.Run(c.kind, func(b *testing.B) {
			f := newFixture(b)
			f.door.collected, f.door.rejected = nowhere{}, nowhere{}
			address := serveDoor(b, f)
			heap := func() float64 {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return float64(m.HeapInuse+m.StackInuse) / (1 << 20)
			}
			runtime.GC()
			heapBefore, rssBefore := heap(), residentMiB(b)
			stop, sampled := make(chan struct{}), make(chan [3]float64)
			go func() {
				var most [3]float64
				for {
					most[0], most[1] = max(most[0], heap()), max(most[1], residentMiB(b))
					most[2] = max(most[2], float64(f.budget.used.Load())/(1<<20))
					select {
					case <-stop:
						sampled <- most
						return
					case <-time.After(sampleEvery):
					}
				}
			}()
			if c.n > 0 {
				_, err := fmt.Fprintln(hostile.in, address, c.kind, c.n)
				require.NoError(b, err)
			}
			if c.n > 0 && c.kind != abuseBombs {
				require.Equal(b, "open", hostile.line(b))
			}
			_, err := fmt.Fprintln(calm.in, address, "wk_server", 1, calmRequests)
			require.NoError(b, err)
			var taken, others int
			var p50, p99 float64
			_, err = fmt.Sscan(calm.line(b), &taken, &others, &p50, &p99)
			require.NoError(b, err)
			require.Zero(b, others, "the other source is served")
			if c.kind == abuseBombs {
				require.Equal(b, "answered", hostile.line(b))
			}
			close(stop)
			most := <-sampled
			b.ReportMetric(most[0]-heapBefore, "heap-MiB")
			b.ReportMetric(most[1]-rssBefore, "rss-MiB")
			b.ReportMetric(most[2], "in-flight-MiB")
			b.ReportMetric(p99/1000, "p99-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}
