package collector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"go.uber.org/zap"
)

// Limits of the HTTP server. SDKs send what they have at once, so a sender that needs longer is broken or
// hostile; the answer may take as long as Kafka is given (collector.produce_timeout) and a little more.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 30 * time.Second
	// chunkTimeout is how long a body may be silent: a phone that changes cells is back within it, and thousands of
	// connections that say a byte now and then hold their memory for no longer.
	chunkTimeout   = 10 * time.Second
	idleTimeout    = 75 * time.Second // above the 60 s after which common load balancers drop idle connections
	answerSlack    = 5 * time.Second
	maxHeaderBytes = 16 << 10
	// maxStreams is how many requests of one HTTP/2 connection may be open: as the standard advises at least.
	maxStreams = 100
)

// server speaks HTTP/1.1 and, to those who know it beforehand (load balancers, servers), HTTP/2 without TLS.
func (s *Service) server() (*http.Server, error) {
	faults, err := zap.NewStdLogAt(s.deps.Log, zap.WarnLevel)
	if err != nil {
		return nil, fmt.Errorf("make the HTTP server's log: %w", err)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           paced(s.leaving(s.door), chunkTimeout),
		Protocols:         &protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      readTimeout + s.cfg.Collector.ProduceTimeout + answerSlack,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          faults,
	}, nil
}

// paced cuts off a body that is silent for too long, before the time for the whole of it is over.
func paced(next http.Handler, chunk time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &pacedBody{ReadCloser: r.Body, control: http.NewResponseController(w), chunk: chunk}
		}
		next.ServeHTTP(w, r)
	})
}

type pacedBody struct {
	io.ReadCloser
	control *http.ResponseController
	chunk   time.Duration
	end     time.Time // for the whole; zero before the first Read
}

func (b *pacedBody) Read(p []byte) (int, error) {
	now := time.Now()
	if b.end.IsZero() {
		b.end = now.Add(readTimeout)
	}
	by := now.Add(b.chunk)
	if b.end.Before(by) {
		by = b.end
	}
	if err := b.control.SetReadDeadline(by); err != nil && !errors.Is(err, http.ErrNotSupported) { // a recorder in a test
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("body was silent for %s, or took longer than %s: %w", b.chunk, readTimeout, err)
	}
	return n, err
}

// leaving asks senders to open another connection once the door is about to close: the load balancer then picks another
// collector.
func (s *Service) leaving(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.closing.Load() && r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// shut closes the door. It is not ready any more, but if it was it goes on taking requests for collector.drain_delay,
// until load balancers have noticed that; then requests in flight end under their own deadline.
func (s *Service) shut(ctx context.Context, server *http.Server, noticed bool) {
	if noticed {
		time.Sleep(s.cfg.Collector.DrainDelay)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Admin.ShutdownTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		s.deps.Log.Warn("requests cut off at shutdown", zap.Error(err))
		if err := server.Close(); err != nil {
			s.deps.Log.Warn("closing the HTTP door did not work", zap.Error(err))
		}
	}
}
