// Package daemon is the frame of every Weft process: logging, metrics, the admin server, signals, and an
// ordered shutdown.
//
// It owns: the order in which things come up and go down. It guarantees that the admin server is up before
// anything is built and down last; that unready is the first act of a shutdown; that services stop one
// after the other in the order given, each within its own deadline, and that what they stand on is closed
// only after them; that one service's fatal end ends the process; and that every error is returned. It must
// not know what a service does.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
)

// Service is anything that works until its context ends.
type Service interface {
	// Run blocks until ctx ends, and then returns nil soon, or until it cannot go on.
	Run(ctx context.Context) error
}

// Named is a service in its frame.
type Named struct {
	Name    string
	Service Service
	// Ready returns nil when the service has caught up, else why it has not; it is called at any time and
	// from several goroutines. Nil means ready from the start.
	Ready func() error
	// Amiss returns what an operator should look at although the service is ready, such as one source of several
	// that is down; it is called as Ready is. Nil means that there is never anything.
	Amiss func() error
}

// Options is what Run needs.
type Options struct {
	Config  config.Config
	Name    string // of the process: stands in every log line
	Version string
	Log     *zap.Logger // if nil, made from Config.Log, writing to standard error
}

// Frame is what the services of a process are built on.
type Frame struct {
	Config  config.Config
	Log     *zap.Logger
	Metrics *prometheus.Registry

	mu       sync.Mutex
	admin    string
	services []Named
	closers  []closer
	state    string // why the process is not ready; empty: ask the services
}

type closer struct {
	name  string
	close func(ctx context.Context) error
}

// Reported wraps an error that Run has logged already: it is not to be printed again.
type Reported struct{ Err error }

func (r Reported) Error() string { return r.Err.Error() }

// Unwrap gives the error that was logged.
func (r Reported) Unwrap() error { return r.Err }

// OnClose has close called after all services have stopped: the last one registered first, each with a
// context that ends after admin.shutdown_timeout.
func (f *Frame) OnClose(name string, closing func(ctx context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closers = append(f.closers, closer{name, closing})
}

// AdminAddr is where the admin server listens, or empty if there is none.
func (f *Frame) AdminAddr() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.admin
}

// Ready returns nil if every service is ready, else every reason why not.
func (f *Frame) Ready() error {
	return f.ask(func(s Named) func() error { return s.Ready })
}

// Amiss returns nil, or everything that an operator should look at although its service is ready.
func (f *Frame) Amiss() error {
	return f.ask(func(s Named) func() error { return s.Amiss })
}

// ask joins what the services answer to a question; nil is no question to them.
func (f *Frame) ask(question func(s Named) func() error) error {
	f.mu.Lock()
	state, services := f.state, f.services
	f.mu.Unlock()
	if state != "" {
		return errors.New(state)
	}
	var errs []error
	for _, s := range services {
		answer := question(s)
		if answer == nil {
			continue
		}
		if err := answer(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (f *Frame) set(state string, services []Named) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = state
	if services != nil {
		f.services = services
	}
}

// Run builds the services and runs them until ctx ends, SIGINT or SIGTERM arrives, or a service ends by
// itself, and then stops them in the order that build gave. A second signal ends the process at once.
//
// It returns nil after an orderly stop. An error is a Reported, that is logged already, unless there was no
// logger to log it with.
func Run(ctx context.Context, opt Options, build func(ctx context.Context, f *Frame) ([]Named, error)) error {
	log := opt.Log
	if log == nil {
		var err error
		if log, err = Logger(opt.Config.Log, os.Stderr); err != nil {
			return err
		}
	}
	log = log.With(zap.String("service", opt.Name))
	defer func() { _ = log.Sync() }() // standard error cannot be synced on every system
	f := &Frame{Config: opt.Config, Log: log, Metrics: registry(opt.Version), state: "starting"}
	if err := f.run(ctx, opt, build); err != nil {
		log.Error("stopped by an error", zap.Error(err))
		return Reported{err}
	}
	log.Info("stopped")
	return nil
}

func (f *Frame) run(ctx context.Context, opt Options, build func(context.Context, *Frame) ([]Named, error)) (err error) {
	stop := func(context.Context) error { return nil }
	if address := f.Config.Admin.Listen; address != "" {
		if stop, err = f.serveAdmin(ctx, address, opt.Version); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, f.within("admin server", stop)) }()

	ctx, unregister := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer unregister()
	f.Log.Info("starting", zap.String("version", opt.Version), zap.String("admin", f.AdminAddr()))

	// Also what a failed build has opened is closed.
	defer func() { err = errors.Join(err, f.closeAll()) }()
	services, err := build(ctx, f)
	if err != nil {
		return fmt.Errorf("start %s: %w", opt.Name, err)
	}
	f.set("", services)

	running := f.startAll(ctx, services)
	select {
	case <-ctx.Done():
	case <-running.ended:
	}
	f.set("stopping", nil)
	unregister() // from here on a second signal ends the process
	f.Log.Info("stopping", zap.Duration("deadline_each", f.Config.Admin.ShutdownTimeout))
	return running.stopAll(f)
}

// running is the services at work.
type running struct {
	each  []*task
	ended chan struct{} // closed when the first service has returned
	once  sync.Once
}

type task struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
	early  bool  // returned before it was told to
	err    error // valid once done is closed
}

// startAll gives each service a context of its own that does not end with ctx: they are stopped in order.
func (f *Frame) startAll(ctx context.Context, services []Named) *running {
	r := &running{ended: make(chan struct{})}
	for _, s := range services {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		t := &task{name: s.Name, cancel: cancel, done: make(chan struct{})}
		r.each = append(r.each, t)
		go func() {
			defer close(t.done)
			t.err = s.Service.Run(own)
			t.early = own.Err() == nil
			r.once.Do(func() { close(r.ended) })
		}()
	}
	return r
}

func (r *running) stopAll(f *Frame) error {
	var errs []error
	for _, t := range r.each {
		t.cancel()
		select {
		case <-t.done:
		case <-time.After(f.Config.Admin.ShutdownTimeout):
			errs = append(errs, fmt.Errorf("stop %s: still running after %s", t.name, f.Config.Admin.ShutdownTimeout))
			continue
		}
		switch {
		case t.err != nil && !errors.Is(t.err, context.Canceled):
			errs = append(errs, fmt.Errorf("%s: %w", t.name, t.err))
		case t.early:
			errs = append(errs, fmt.Errorf("%s: ended by itself", t.name))
		}
	}
	return errors.Join(errs...)
}

func (f *Frame) closeAll() error {
	f.mu.Lock()
	closers := f.closers
	f.mu.Unlock()
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, f.within(closers[i].name, closers[i].close))
	}
	return errors.Join(errs...)
}

// within calls closing with a deadline of its own and does not wait longer than that, whatever it does.
func (f *Frame) within(name string, closing func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), f.Config.Admin.ShutdownTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- closing(ctx) }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("close %s: %w", name, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close %s: still busy after %s", name, f.Config.Admin.ShutdownTimeout)
	}
}

// registry is the process's metrics, with those of the Go runtime, the process and the build.
func registry(version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "weft_build_info", Help: "1, labelled with the version of this binary.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build)
	return r
}

var _ http.Handler = (*admin)(nil)
