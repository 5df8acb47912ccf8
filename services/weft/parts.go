package main

import (
	"context"
	"fmt"
	"time"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/daemon"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/services/activator"
	"github.com/weft-cdp/weft/services/collector"
	stitcher "github.com/weft-cdp/weft/services/identity-stitcher"
	writer "github.com/weft-cdp/weft/services/journey-writer"
	builder "github.com/weft-cdp/weft/services/profile-builder"
)

// The names of the services, as in commands, logs and health.
const (
	nameCollector = "collector"
	nameStitcher  = "identity-stitcher"
	nameBuilder   = "profile-builder"
	nameActivator = "activator"
	nameWriter    = "journey-writer"
)

// connections are the clients that the services of a process share.
type connections struct {
	stream    *stream.Client
	store     *store.Client
	warehouse *warehouse.Client
}

// needs says which connections a service wants. spool is a store, and history a warehouse, if the configuration has one.
type needs struct{ store, spool, warehouse, history bool }

// connect makes the clients, which connect when they are first used, and has them closed with the process.
func connect(f *daemon.Frame, cfg config.Config, n needs) (connections, error) {
	var c connections
	var err error
	if len(cfg.Kafka.Brokers) == 0 {
		return c, missing("kafka.brokers")
	}
	if n.store && len(cfg.Redis.Addresses) == 0 {
		return c, missing("redis.addresses")
	}
	if n.warehouse && len(cfg.ClickHouse.Addresses) == 0 {
		return c, missing("clickhouse.addresses")
	}
	if c.stream, err = stream.New(cfg.Kafka, f.Log.Named("stream"), stream.WithMetrics(f.Metrics)); err != nil {
		return c, fmt.Errorf("kafka: %w", err)
	}
	f.OnClose("kafka client", func(context.Context) error { c.stream.Close(); return nil })
	if n.store || n.spool && len(cfg.Redis.Addresses) > 0 {
		if c.store, err = store.New(cfg.Redis, f.Log.Named("store"), store.WithMetrics(f.Metrics)); err != nil {
			return c, fmt.Errorf("redis: %w", err)
		}
		f.OnClose("redis client", func(context.Context) error { return c.store.Close() })
	}
	if n.warehouse || n.history && len(cfg.ClickHouse.Addresses) > 0 {
		if c.warehouse, err = warehouse.Open(cfg.ClickHouse); err != nil {
			return c, fmt.Errorf("clickhouse: %w", err)
		}
		f.OnClose("clickhouse client", func(context.Context) error { return c.warehouse.Close() })
	}
	return c, nil
}

func missing(path string) error {
	return fmt.Errorf("%s is empty: give it in the file or as %s, or let 'weft up' start its own", path, config.EnvName(path))
}

// readier is what every service offers beside Run.
type readier interface {
	daemon.Service
	Ready() error
}

func named(name string, s readier) daemon.Named {
	return daemon.Named{Name: name, Service: s, Ready: s.Ready}
}

// A maker builds one service of a process.
type maker func(f *daemon.Frame, cfg config.Config, c connections) (daemon.Named, error)

func makeCollector(f *daemon.Frame, cfg config.Config, c connections) (daemon.Named, error) {
	s, err := collector.New(cfg, collector.Deps{
		Stream: c.stream, Store: c.store, Log: f.Log.Named(nameCollector), Metrics: f.Metrics, Now: time.Now,
	})
	if err != nil {
		return daemon.Named{}, err
	}
	n := named(nameCollector, s)
	n.Amiss = s.InletsReady
	return n, nil
}

func makeStitcher(f *daemon.Frame, cfg config.Config, c connections) (daemon.Named, error) {
	deps := stitcher.Deps{Stream: c.stream, Store: c.store, Log: f.Log.Named(nameStitcher), Metrics: f.Metrics, Now: time.Now}
	if c.warehouse != nil {
		deps.Warehouse = c.warehouse
	}
	s, err := stitcher.New(cfg, deps)
	if err != nil {
		return daemon.Named{}, err
	}
	return named(nameStitcher, s), nil
}

func makeBuilder(f *daemon.Frame, cfg config.Config, c connections) (daemon.Named, error) {
	deps := builder.Deps{Stream: c.stream, Store: c.store, Log: f.Log.Named(nameBuilder), Metrics: f.Metrics, Now: time.Now}
	if c.warehouse != nil {
		deps.History = c.warehouse
	}
	s, err := builder.New(cfg, deps)
	if err != nil {
		return daemon.Named{}, err
	}
	return named(nameBuilder, s), nil
}

func makeActivator(f *daemon.Frame, cfg config.Config, c connections) (daemon.Named, error) {
	s, err := activator.New(cfg, activator.Deps{
		Stream: c.stream, Store: c.store, Log: f.Log.Named(nameActivator), Metrics: f.Metrics, Now: time.Now,
	})
	if err != nil {
		return daemon.Named{}, err
	}
	return named(nameActivator, s), nil
}

func makeWriter(f *daemon.Frame, cfg config.Config, c connections) (daemon.Named, error) {
	s, err := writer.New(cfg, writer.Deps{
		Stream: c.stream, Warehouse: c.warehouse, Log: f.Log.Named(nameWriter), Metrics: f.Metrics, Now: time.Now,
	})
	if err != nil {
		return daemon.Named{}, err
	}
	return named(nameWriter, s), nil
}
