// Package embedded runs Kafka, Redis and ClickHouse for a machine that has none: for 'weft up', 'weft demo'
// and the tests. The services see addresses and real wire protocols, and nothing of this package.
//
// It owns: a data directory with the state of all three, the child processes, and their end. It guarantees
// that a data directory is used by one process at a time, that state survives a restart (but see Parts.Durable),
// that listeners are bound to loopback, and that no child outlives this process, even where it is killed with
// SIGKILL. No root is needed and nothing is downloaded: a missing part is an error that says how to get it.
// It must not know what the servers are used for.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"go.uber.org/zap"
)

// Options says which parts to start and where they keep their data.
type Options struct {
	// DataDir holds everything; it is made if it does not exist.
	DataDir string
	// Log gets a line for each part, and what Kafka says at debug level.
	Log *zap.Logger
	// Self is the command that runs this binary, whose main function must hand its arguments to Child. Nil:
	// the running executable.
	Self []string
	// Kafka, Redis and ClickHouse are the parts to start.
	Kafka, Redis, ClickHouse bool
	// RealKafka starts Apache Kafka (scripts/fetch-kafka, Java) instead of kfake within this process.
	RealKafka bool
	// NeedRedis makes it an error that redis-server is not installed, instead of using miniredis.
	NeedRedis bool
	// ClickHouseLibrary is the path of libchdb.so. Empty: where scripts/fetch-clickhouse puts it.
	ClickHouseLibrary string
	// ClickHouseUsers are files for ClickHouse's users.d, by name.
	ClickHouseUsers map[string][]byte
}

// Parts are the started parts. An address of a part that was not asked for is empty.
type Parts struct {
	KafkaAddr          string
	RedisAddr          string
	ClickHouseAddr     string // native protocol
	ClickHouseHTTPAddr string
	// Durable says that all state survives a restart. It is false with miniredis, whose data lives in memory:
	// then Kafka and ClickHouse have started empty too, in directories of their own, because offsets without
	// the state that belongs to them would be wrong.
	Durable bool

	log      *zap.Logger
	self     []string
	lock     *os.File
	mu       sync.Mutex
	closers  []func(context.Context) error // in the order of being ready
	ended    chan error                    // a child's unexpected end
	closing  chan struct{}
	closed   error
	stopOnce sync.Once
}

// Start starts the parts and returns when all of them answer. If one does not, the others are stopped again.
func Start(ctx context.Context, opt Options) (*Parts, error) {
	self := opt.Self
	if self == nil {
		path, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this binary: %w", err)
		}
		self = []string{path}
	}
	if err := os.MkdirAll(opt.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded parts: %w", err)
	}
	dir, err := filepath.Abs(opt.DataDir)
	if err != nil {
		return nil, fmt.Errorf("embedded parts: %w", err)
	}
	p := &Parts{Durable: true, log: opt.Log, self: self, ended: make(chan error, 4), closing: make(chan struct{})}
	if p.lock, err = lockDir(ctx, dir); err != nil {
		return nil, err
	}
	if err := p.start(ctx, dir, opt); err != nil {
		return nil, errors.Join(err, p.Close(context.WithoutCancel(ctx)))
	}
	return p, nil
}

func (p *Parts) start(ctx context.Context, dir string, opt Options) error {
	ports, err := readPorts(dir)
	if err != nil {
		return err
	}
	redis, lookErr := exec.LookPath(redisServer)
	if opt.Redis && lookErr != nil {
		if opt.NeedRedis {
			return fmt.Errorf("start Redis: %s is not installed (Debian: apt-get install redis-server)", redisServer)
		}
		p.Durable = false
		p.log.Warn("redis-server is not installed: using miniredis, whose data lives in memory; nothing survives a restart, and everything starts empty")
		dir = filepath.Join(dir, "volatile")
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("empty %s: %w", dir, err)
		}
	}
	// Slowest first: ClickHouse loads its library while the others start.
	steps := []struct {
		wanted bool
		start  func() error
	}{
		{opt.ClickHouse, func() error { return p.startClickHouse(ctx, filepath.Join(dir, "clickhouse"), ports, opt) }},
		{opt.Redis && p.Durable, func() error { return p.startRedis(ctx, redis, filepath.Join(dir, "redis"), ports) }},
		{opt.Redis && !p.Durable, func() error { return p.startMiniredis() }},
		{opt.Kafka && opt.RealKafka, func() error { return p.startRealKafka(ctx, filepath.Join(dir, "apache-kafka"), ports) }},
		{opt.Kafka && !opt.RealKafka, func() error { return p.startKafka(filepath.Join(dir, "kafka"), ports) }},
	}
	var wg sync.WaitGroup
	errs := make([]error, len(steps))
	for i, s := range steps {
		if s.wanted {
			wg.Go(func() { errs[i] = s.start() })
		}
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return ports.write()
}

// onClose has stop called by Close. The parts start side by side.
func (p *Parts) onClose(stop func(context.Context) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closers = append(p.closers, stop)
}

// Run watches the parts: it returns nil when ctx ends, and an error as soon as one of them has ended by itself.
func (p *Parts) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-p.ended:
		return err
	}
}

// Close stops the parts, those started last first, and waits for them to be gone. What is not gone when ctx
// ends is killed. Closing again does nothing and returns the same.
func (p *Parts) Close(ctx context.Context) error {
	p.stopOnce.Do(func() {
		close(p.closing)
		var errs []error
		for i := len(p.closers) - 1; i >= 0; i-- {
			errs = append(errs, p.closers[i](ctx))
		}
		errs = append(errs, p.lock.Close())
		p.closed = errors.Join(errs...)
	})
	return p.closed
}
