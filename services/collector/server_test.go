package collector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// One source that floods the door leaves room for others, and two leave room for a third.
func TestBytesInFlightAreShared(t *testing.T) {
	b := &budget{max: 1200}
	fill := func(of *share) (held []*lease) {
		for {
			l := &lease{b: b, of: of}
			if !l.grow(10) {
				return held
			}
			held = append(held, l)
		}
	}
	var flood, second, quiet, strangers share
	one := fill(&flood)
	require.InDelta(t, 600, flood.used.Load(), 20, "half of it")
	two := fill(&second)
	require.InDelta(t, 300, second.used.Load(), 20, "half of the rest")
	l := &lease{b: b, of: &quiet}
	require.True(t, l.grow(200), "a request alone needs no share, only room")
	l.move(&strangers)
	require.Zero(t, quiet.used.Load())
	require.Equal(t, int64(200), strangers.used.Load())
	l.release()
	for _, l := range append(one, two...) {
		l.release()
	}
	for _, s := range []*share{&flood, &second, &quiet, &strangers} {
		require.Zero(t, s.used.Load())
	}
	require.Zero(t, b.used.Load())
}

// A body that falls silent is cut off, long before the time for the whole of it is over.
func TestSilentBodyIsCutOff(t *testing.T) {
	got := make(chan error, 1)
	srv := httptest.NewServer(paced(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		got <- err
	}), 50*time.Millisecond))
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = fmt.Fprint(conn, "POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
	require.NoError(t, err)
	select {
	case err := <-got:
		require.ErrorContains(t, err, "body was silent for 50ms")
	case <-time.After(readTimeout):
		t.Fatal("the body is still waited for")
	}
}

// HTTP/2 without TLS, as load balancers speak it, is the same door.
func TestHTTP2WithoutTLS(t *testing.T) {
	s := newBroker(t).ready()
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &p}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+s.Addr()+"/v1/page", strings.NewReader(`{"userId":"u"}`))
	require.NoError(t, err)
	req.Header.Set("Authorization", basic("wk_demo"))
	resp, err := (&http.Client{Transport: transport, Timeout: patience}).Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, "200 OK HTTP/2.0", resp.Status+" "+resp.Proto)
}

// A balancer sends to whichever collector is ready, and looks again for each request; one collector after the other is
// stopped and replaced. No request fails.
func TestNoRequestFailsWhenCollectorsAreReplaced(t *testing.T) {
	b := newBroker(t)
	b.cfg.Collector.DrainDelay = 2 * time.Second
	var mu sync.Mutex
	doors := []*running{b.ready(), b.ready()}
	pick := func(i int) string {
		mu.Lock() // so that none is replaced meanwhile: the next one is stopped after that
		defer mu.Unlock()
		for k := range doors {
			if d := doors[(i+k)%len(doors)]; d.Ready() == nil {
				return d.Addr()
			}
		}
		t.Error("no collector is ready")
		return ""
	}
	client := &http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	var stop atomic.Bool
	var done atomic.Int64
	var senders sync.WaitGroup
	for i := range 4 {
		senders.Go(func() {
			for n := i; !stop.Load(); n++ {
				door := pick(n)
				began := time.Now()
				req, err := http.NewRequest(http.MethodPost, "http://"+door+"/v1/page", strings.NewReader(`{"userId":"u"}`))
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Authorization", basic("wk_demo"))
				resp, err := client.Do(req)
				var network *net.OpError
				if errors.As(err, &network) && network.Op == "dial" && time.Since(began) > b.cfg.Collector.DrainDelay/2 {
					continue // this machine stood still between the look and the call: no balancer looks so seldom
				}
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Error(resp.Status)
					return
				}
				done.Add(1)
			}
		})
	}
	for i := range doors {
		from := done.Load()
		require.Eventually(t, func() bool { return done.Load() > from+20 || t.Failed() }, patience, time.Millisecond)
		mu.Lock()
		old := doors[i]
		mu.Unlock()
		require.NoError(t, old.stop())
		fresh := b.ready()
		mu.Lock()
		doors[i] = fresh
		mu.Unlock()
	}
	stop.Store(true)
	senders.Wait()
}
