package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

// headerTimeout bounds how long a client may take over its request's head.
const headerTimeout = 10 * time.Second

// admin answers /healthz, /readyz, /metrics, /version and /debug/pprof.
type admin struct{ mux *http.ServeMux }

func (a *admin) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

func (f *Frame) adminHandler(version string) *admin {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, version) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := f.Ready(); err != nil {
			answer(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		text := "ready"
		if err := f.Amiss(); err != nil {
			text += "\n" + err.Error()
		}
		answer(w, http.StatusOK, text)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(f.Metrics, promhttp.HandlerOpts{Registry: f.Metrics}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return &admin{mux}
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, text) // the client may have gone
}

// serveAdmin starts the admin server and returns how to stop it.
func (f *Frame) serveAdmin(ctx context.Context, address, version string) (stop func(context.Context) error, err error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("admin server: %w", err)
	}
	f.mu.Lock()
	f.admin = l.Addr().String()
	f.mu.Unlock()
	server := &http.Server{
		Handler: f.adminHandler(version), ReadHeaderTimeout: headerTimeout,
		ErrorLog: zap.NewStdLog(f.Log.Named("admin")),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			f.Log.Error("admin server ended", zap.Error(err))
		}
	}()
	return func(ctx context.Context) error {
		err := server.Shutdown(ctx)
		if err != nil {
			err = errors.Join(err, server.Close()) // a profile may still be running
		}
		<-done
		return err
	}, nil
}
