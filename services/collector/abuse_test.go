package collector

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
)

// pipes is a network of virtual time: a listener that is dialled in memory.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Hundreds of connections that say a byte now and then hold nobody up, over HTTP/1 and HTTP/2: a good sender is served as if they
// were not there, what they hold is bounded, and each of them is cut off in its time. Time is virtual: how busy the machine is
// changes nothing.
func TestSlowSendersHoldNobodyUp(t *testing.T) {
	const each = 150
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		server, l := serverOf(t, f), newPipes()
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = server.Serve(l)
		}()
		began := time.Now()
		var slow sync.WaitGroup
		var ended [4]atomic.Int64   // connections or streams that the server has ended, by kind
		var longest [4]atomic.Int64 // and after how long the last of them
		end := func(kind int) {
			ended[kind].Add(1)
			longest[kind].Store(int64(time.Since(began)))
		}
		post := "POST /v1/batch HTTP/1.1\r\nHost: x\r\nAuthorization: " + basic("wk_demo") + "\r\n"
		body := post + "Content-Length: 4000000\r\n\r\n{"
		for kind, what := range []struct {
			says string
			more string        // said again and again
			gap  time.Duration // 0: never
		}{{post + "X-", "", 0}, {post, "X-A: b\r\n", time.Second}, {body, "", 0}, {body, " ", time.Second}} {
			for range each {
				slow.Go(func() {
					defer end(kind)
					c, err := l.dial(t.Context(), "", "")
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close() //nolint:errcheck // in memory
					gone := make(chan struct{})
					go func() {
						defer close(gone)
						_, _ = io.Copy(io.Discard, c)
					}()
					_, err = io.WriteString(c, what.says)
					for what.gap > 0 && err == nil {
						time.Sleep(what.gap)
						_, err = io.WriteString(c, what.more)
					}
					<-gone
				})
			}
		}
		var both http.Protocols
		both.SetUnencryptedHTTP2(true)
		var streams atomic.Int64
		for range 3 { // as many streams of a connection as there may be
			transport := &http.Transport{Protocols: &both, DialContext: l.dial}
			defer transport.CloseIdleConnections()
			for range maxStreams {
				slow.Go(func() {
					silent, hold := io.Pipe()
					defer hold.Close() //nolint:errcheck // in memory
					go func() { _, _ = hold.Write([]byte("{")) }()
					r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://door/v1/batch", silent)
					if err != nil {
						t.Error(err)
						return
					}
					r.Header.Set("Authorization", basic("wk_demo"))
					resp, err := transport.RoundTrip(r)
					if err == nil {
						if resp.StatusCode == http.StatusOK {
							t.Error(resp.Status)
						}
						_ = resp.Body.Close()
					}
					streams.Add(1)
				})
			}
		}
		good := &http.Transport{DialContext: l.dial}
		most := int64(0)
		for time.Since(began) < readTimeout+chunkTimeout {
			synctest.Wait() // until nobody has anything to do but wait
			most = max(most, f.budget.used.Load())
			at := time.Now()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://door/v1/page", strings.NewReader(`{"userId":"u"}`))
			require.NoError(t, err)
			r.Header.Set("Authorization", basic("wk_server"))
			resp, err := good.RoundTrip(r)
			require.NoError(t, err)
			_, _ = io.Copy(io.Discard, resp.Body)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, http.StatusOK, resp.StatusCode)
			require.Zero(t, time.Since(at), "it waits for nobody")
			one(t, f.collected.take())
			good.CloseIdleConnections() // the next one opens another
			time.Sleep(time.Second)
		}
		require.Positive(t, most)
		require.LessOrEqual(t, most, int64((2*each+3*maxStreams)*maxFirstBuffer), "of those whose bodies are slow")
		slow.Wait()
		for kind, limit := range []time.Duration{headerTimeout, headerTimeout, chunkTimeout, readTimeout} {
			require.Equal(t, int64(each), ended[kind].Load())
			require.Less(t, time.Duration(longest[kind].Load()), limit+2*time.Second, kind)
		}
		require.Equal(t, int64(3*maxStreams), streams.Load())
		require.Zero(t, f.budget.used.Load())
		require.NoError(t, server.Close())
		<-served
	})
}

// Many gzip bombs at once: each is refused, or asked to come again; together they never hold more than the bytes in flight
// may be, and another source is served among them.
func TestManyGzipBombsAtOnce(t *testing.T) {
	const room, bombs = 24 << 20, 48
	f := newFixture(t, func(c *config.Collector) { c.MaxInFlightBytes = room })
	body := bomb(t, 1<<20, 1<<30)
	var senders sync.WaitGroup
	var refused, later, peak atomic.Int64
	for range bombs {
		senders.Go(func() {
			for refused.Load()+later.Load() < 2*bombs {
				switch status := f.do("POST", "/v1/batch", basic("wk_demo"), body).Code; status {
				case 400:
					refused.Add(1)
				case 503:
					later.Add(1)
				default:
					t.Errorf("a bomb is answered %d", status)
					return
				}
				peak.Store(max(peak.Load(), f.budget.used.Load()))
			}
		})
	}
	for range bombs {
		require.Equal(t, 200, f.do("POST", "/v1/page", basic("wk_server"), `{"userId":"u"}`).Code)
	}
	senders.Wait()
	require.Positive(t, refused.Load())
	require.LessOrEqual(t, peak.Load(), int64(room))
	require.Zero(t, f.budget.used.Load())
	require.Len(t, f.collected.take(), bombs)
	for _, r := range f.rejected.take() {
		require.LessOrEqual(t, len(r.Value), maxKeptBytes)
	}
}

// What a source sends over its rate is answered before a byte of its body is read, and costs nothing that others need: no
// room, no record, no turn at Kafka.
func TestAFloodIsRefusedBeforeItIsRead(t *testing.T) {
	f := newFixture(t, func(c *config.Collector) { c.Sources[0].Rate = config.SourceRate{EventsPerSecond: 10} })
	const page = `{"userId":"u"}`
	for range 10 {
		require.Equal(t, 200, f.do("POST", "/v1/page", basic("wk_demo"), page).Code)
	}
	f.collected.take()
	for range 100 { // ten times its limit
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/batch", readFunc(func([]byte) (int, error) {
			t.Error("the body is read")
			return 0, io.EOF
		}))
		require.NoError(t, err)
		r.Header.Set("Authorization", basic("wk_demo"))
		name, a := f.route(r)
		require.Equal(t, "batch", name)
		require.Equal(t, http.StatusTooManyRequests, a.status)
		require.Zero(t, f.budget.used.Load())
		require.Equal(t, 200, f.do("POST", "/v1/page", basic("wk_server"), page).Code)
	}
	require.Len(t, f.collected.take(), 100, "of the other")
	require.Empty(t, f.rejected.take())
}
