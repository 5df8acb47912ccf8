//go:build integration

package identity

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/store"
)

// What the graph costs on a real Redis, each time beside the floor in the same run: plain SET and MGET of the same
// identifiers, which link nothing and guard nothing.

var (
	graphIDs  = flag.Int("graph.ids", 300_000, "identifiers in the graph whose size and reading are measured")
	graphMost = flag.Int("graph.most", 1_000_000, "identifiers in the larger of two graphs that are compared")
)

// server is a Redis, and what it says of itself.
type server struct {
	*store.Client
	b     *testing.B
	reads int // round trips of MGetGroups
	swaps int // and of RunEach
}

func newServer(b *testing.B) *server {
	b.Helper()
	addr := os.Getenv("WEFT_TEST_REDIS")
	require.NotEmpty(b, addr, "WEFT_TEST_REDIS: 'make bench' sets it")
	c, err := store.New(config.Redis{Addresses: strings.Split(addr, ",")}, zap.NewNop())
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, c.Close()) })
	return &server{Client: c, b: b}
}

func (s *server) MGetGroups(ctx context.Context, groups [][]string) ([][][]byte, error) {
	s.reads++
	return s.Client.MGetGroups(ctx, groups)
}

func (s *server) RunEach(ctx context.Context, script string, keys [][]string, args [][]any) ([][][]byte, error) {
	s.swaps++
	return s.Client.RunEach(ctx, script, keys, args)
}

// usage is what was used up to a moment.
type usage struct {
	memory, redisCPU, ownCPU float64 // bytes, seconds
	commands                 float64
	at                       time.Time
}

func (s *server) usage() usage {
	s.b.Helper()
	p := s.Pipe()
	reply := p.Do(s.b.Context(), "INFO", "everything")
	require.NoError(s.b, p.Exec(s.b.Context()))
	var u usage
	for line := range strings.Lines(string(reply.Bytes())) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), ":")
		number, _ := strconv.ParseFloat(text, 64) // 0 for the others
		switch {
		case name == "used_memory":
			u.memory = number
		case name == "used_cpu_user", name == "used_cpu_sys":
			u.redisCPU += number
		case strings.HasPrefix(name, "cmdstat_") && name != "cmdstat_info":
			calls, _, _ := strings.Cut(strings.TrimPrefix(text, "calls="), ",")
			n, err := strconv.ParseFloat(calls, 64)
			require.NoError(s.b, err)
			u.commands += n
		}
	}
	var self syscall.Rusage
	require.NoError(s.b, syscall.Getrusage(syscall.RUSAGE_SELF, &self))
	u.ownCPU = time.Duration(self.Utime.Nano() + self.Stime.Nano()).Seconds()
	u.at = time.Now()
	return u
}

// person is the nodes of one, as the shipped rules rank them: a user id, the profile's, and devices. No two persons are alike in any seed.
func person(seed uint64, i, size int) []Node {
	rng := rand.New(rand.NewPCG(seed, uint64(i))) //nolint:gosec // a seed reproduces
	out := make([]Node, size)
	for k := range out {
		n := &out[k]
		binary.BigEndian.PutUint64(n[:8], rng.Uint64())
		binary.BigEndian.PutUint64(n[8:], rng.Uint64())
		n[0], n[6], n[8] = 0xe0, 0x80|n[6]&0x0f, 0x80|n[8]&0x3f
	}
	out[0][0] = 0x10
	return out
}

// fill restores a graph of persons, all their links confirmed, and says how many identifiers it holds.
func (s *server) fill(prefix string, seed uint64, ids, size int) (*Graph, int) {
	s.b.Helper()
	ctx := s.b.Context()
	g := NewGraph(s, prefix)
	pipe, n := s.Pipe(), 0
	flush := func() error {
		err := pipe.Exec(ctx)
		pipe, n = s.Pipe(), 0
		return err
	}
	rs := NewRestore(g, func(key string, value []byte) error {
		pipe.Do(ctx, "SET", key, value)
		if n++; n == 1000 {
			return flush()
		}
		return nil
	})
	persons := ids / size
	for i := range persons {
		nodes := person(seed, i, size)
		for k, loser := range nodes[1:] {
			m := Merge{
				Loser: loser.String(), Winner: nodes[0].String(), Members: []string{loser.String()}, Version: int64(k + 2),
				Cause: Cause{Source: "collector/door:3:123456", MessageID: "0192d1c5-6b1e-7c55-8e0e-3f1d3b1f6a51", Rule: RuleSameEvent, Time: time.UnixMilli(1773620460000).UTC()},
			}
			require.NoError(s.b, rs.Link(&m, true))
		}
	}
	_, err := rs.Roots(ctx)
	require.NoError(s.b, err)
	if n > 0 {
		require.NoError(s.b, flush())
	}
	return g, persons * size
}

// plain sets the same identifiers by plain SETs: key and profile as text.
func (s *server) plain(prefix string, seed uint64, ids, size int) {
	s.b.Helper()
	ctx := s.b.Context()
	for from := 0; from < ids/size; from += 1000 {
		p := s.Pipe()
		for i := from; i < min(from+1000, ids/size); i++ {
			nodes := person(seed, i, size)
			for _, n := range nodes {
				p.Do(ctx, "SET", prefix+n.String(), nodes[0].String())
			}
		}
		require.NoError(s.b, p.Exec(ctx))
	}
}

// forget deletes what stands under a prefix.
func (s *server) forget(pattern string) {
	s.b.Helper()
	ctx := context.WithoutCancel(s.b.Context())
	require.NoError(s.b, s.Scan(ctx, pattern, func(keys []string) error {
		p := s.Pipe()
		for _, k := range keys {
			p.Do(ctx, "DEL", k)
		}
		return p.Exec(ctx)
	}))
}

// BenchmarkGraphMemory: bytes of Redis per linked identifier, everything included, beside plain SET of the same ones.
func BenchmarkGraphMemory(b *testing.B) {
	for _, size := range []int{2, 3, 5} {
		b.Run(fmt.Sprintf("persons of %d", size), func(b *testing.B) {
			s := newServer(b)
			for b.Loop() {
				prefix := fmt.Sprintf("m%d.", time.Now().UnixNano())
				before := s.usage()
				_, n := s.fill(prefix, 1, *graphIDs, size)
				filled := s.usage()
				s.plain(prefix+"plain:", 1, *graphIDs, size)
				done := s.usage()
				s.forget("*" + prefix + "*")
				graph, plain := (filled.memory-before.memory)/float64(n), (done.memory-filled.memory)/float64(n)
				b.ReportMetric(graph, "B/id")
				b.ReportMetric(plain, "plain-B/id")
				b.ReportMetric(graph/plain, "ratio")
				b.ReportMetric((filled.redisCPU-before.redisCPU)*1e6/float64(n), "redis-µs/id")
				b.ReportMetric((done.redisCPU-filled.redisCPU)*1e6/float64(n), "plain-redis-µs/id")
				b.ReportMetric(float64(n)/filled.at.Sub(before.at).Seconds(), "id/s")
				b.ReportMetric(float64(n)/done.at.Sub(filled.at).Seconds(), "plain-id/s")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkGraphKnown: identifiers that were linked long ago and are in no cache, in graphs of two sizes.
func BenchmarkGraphKnown(b *testing.B) {
	const size, batches = 3, 40
	for _, ids := range []int{100_000, *graphMost} {
		b.Run(fmt.Sprintf("graph of %d", ids), func(b *testing.B) {
			s := newServer(b)
			prefix := fmt.Sprintf("k%d.", time.Now().UnixNano())
			g, n := s.fill(prefix, 1, ids, size)
			s.plain(prefix+"plain:", 1, ids, size)
			b.Cleanup(func() { s.forget("*" + prefix + "*") })
			rng := rand.New(rand.NewPCG(7, 7)) //nolint:gosec // a seed reproduces
			for name, of := range map[string]func([]Node) []Node{
				"person and device": func(p []Node) []Node { return []Node{p[0], p[1+rng.IntN(size-1)]} },
				"device alone":      func(p []Node) []Node { return []Node{p[1+rng.IntN(size-1)]} },
			} {
				b.Run(name, func(b *testing.B) {
					s.b = b
					for b.Loop() {
						var used [2]usage // of the floor, of ours
						asked, records := 0, 0
						s.reads, s.swaps = 0, 0
						for range batches {
							batch := make([]Request, benchBatch)
							var keys []any
							for i := range batch {
								for _, node := range of(person(1, rng.IntN(n/size), size)) {
									batch[i].Identifiers = append(batch[i].Identifiers, Identifier{Node: node})
									keys = append(keys, prefix+"plain:"+node.String())
								}
							}
							asked, records = asked+len(keys), records+len(batch)
							start := s.usage()
							for rest := keys; len(rest) > 0; rest = rest[min(len(rest), 500):] {
								p := s.Pipe()
								p.Do(b.Context(), append([]any{"MGET"}, rest[:min(len(rest), 500)]...)...)
								require.NoError(b, p.Exec(b.Context()))
							}
							middle := s.usage()
							_, err := NewResolver(g, 0, Policy{}).Resolve(b.Context(), batch)
							require.NoError(b, err)
							end := s.usage()
							for i, d := range [][2]usage{{start, middle}, {middle, end}} {
								used[i].commands += d[1].commands - d[0].commands
								used[i].ownCPU += d[1].ownCPU - d[0].ownCPU
								used[i].redisCPU += d[1].redisCPU - d[0].redisCPU
							}
						}
						each := 1e6 / float64(asked)
						b.ReportMetric(used[1].commands/float64(asked), "commands/id")
						b.ReportMetric(float64(s.reads+s.swaps)/batches, "trips/batch")
						b.ReportMetric(used[1].ownCPU*each, "weft-µs/id")
						b.ReportMetric(used[0].ownCPU*each, "mget-weft-µs/id")
						b.ReportMetric(used[1].redisCPU*each, "redis-µs/id")
						b.ReportMetric(used[0].redisCPU*each, "mget-redis-µs/id")
					}
					b.ReportMetric(0, "ns/op")
				})
			}
		})
	}
}

// BenchmarkGraphLink: every record links two identifiers never seen, until it is confirmed.
func BenchmarkGraphLink(b *testing.B) {
	const batches = 10
	s := newServer(b)
	prefix := fmt.Sprintf("l%d.", time.Now().UnixNano())
	g, _ := s.fill(prefix, 1, 100_000, 3)
	b.Cleanup(func() { s.forget("*" + prefix + "*") })
	made := 0
	for b.Loop() {
		s.reads, s.swaps = 0, 0
		r := NewResolver(g, 0, Policy{})
		start := s.usage()
		for range batches {
			batch := make([]Request, benchBatch)
			var losers []Node
			for i := range batch {
				p := person(2, made, 2)
				made++
				batch[i] = Request{Identifiers: []Identifier{{Node: p[0], Type: "user_id", Value: "u"}, {Node: p[1], Type: "anonymous_id", Value: "a"}},
					Cause: Cause{Source: "collector/door:3:123456", MessageID: "0192d1c5-6b1e-7c55-8e0e-3f1d3b1f6a51", Rule: RuleSameEvent, Time: time.UnixMilli(1773620460000).UTC()}}
				losers = append(losers, p[1])
			}
			_, err := r.Resolve(b.Context(), batch)
			require.NoError(b, err)
			require.NoError(b, r.Confirm(b.Context(), losers))
		}
		end := s.usage()
		links := float64(batches * benchBatch)
		b.ReportMetric((end.commands-start.commands)/links, "commands/link")
		b.ReportMetric(float64(s.reads+s.swaps)/batches, "trips/batch")
		b.ReportMetric((end.ownCPU-start.ownCPU)*1e6/links, "weft-µs/link")
		b.ReportMetric((end.redisCPU-start.redisCPU)*1e6/links, "redis-µs/link")
		b.ReportMetric(end.at.Sub(start.at).Seconds()*1e6/links, "µs/link")
	}
	b.ReportMetric(0, "ns/op")
}
