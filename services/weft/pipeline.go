package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/daemon"
	"github.com/weft-cdp/weft/pkg/embedded"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/schemas/clickhouse"
	"github.com/weft-cdp/weft/schemas/journeys"
)

// pipeline is all services in one process, on parts of its own wherever no address is given.
type pipeline struct {
	cfg      config.Config // with the addresses of the parts
	parts    *embedded.Parts
	conns    connections
	services []daemon.Named // in the order of the data's way, which is that of stopping; the parts last
}

// newPipeline starts the parts, makes topics, and builds the services. What it opens is closed with the frame.
func newPipeline(ctx context.Context, f *daemon.Frame, cfg config.Config) (*pipeline, error) {
	parts, err := startParts(ctx, f, &cfg)
	if err != nil {
		return nil, err
	}
	p := &pipeline{cfg: cfg, parts: parts}
	if p.conns, err = connect(f, cfg, needs{store: true, warehouse: true}); err != nil {
		return nil, err
	}
	specs := cfg.TopicSpecs()
	if parts.KafkaAddr != "" {
		// Nobody else would make the inlets' topics in a Kafka of our own.
		for _, s := range cfg.Collector.KafkaSources() {
			specs = append(specs, topic.Spec{Name: s.Kafka.Topic, Partitions: cfg.Topics.Partitions})
		}
	}
	if err := p.conns.stream.EnsureTopics(ctx, specs, cfg.Topics); err != nil {
		return nil, err
	}
	if err := p.conns.store.Check(ctx); err != nil {
		return nil, err
	}
	for _, build := range []maker{makeCollector, makeStitcher, makeBuilder, makeActivator, makeWriter} {
		s, err := build(f, cfg, p.conns)
		if err != nil {
			return nil, err
		}
		p.services = append(p.services, s)
	}
	p.services = append(p.services, daemon.Named{Name: "embedded parts", Service: parts})
	return p, nil
}

// startParts starts those parts that have no address in cfg, and fills their addresses in.
func startParts(ctx context.Context, f *daemon.Frame, cfg *config.Config) (*embedded.Parts, error) {
	binary, err := self()
	if err != nil {
		return nil, err
	}
	parts, err := embedded.Start(ctx, embedded.Options{
		DataDir: cfg.DataDir, Log: f.Log.Named("embedded"), Self: binary,
		Kafka:           len(cfg.Kafka.Brokers) == 0,
		Redis:           len(cfg.Redis.Addresses) == 0,
		ClickHouse:      len(cfg.ClickHouse.Addresses) == 0,
		ClickHouseUsers: map[string][]byte{"weft-analyst.xml": clickhouse.AnalystUser},
	})
	if err != nil {
		return nil, err
	}
	f.OnClose("embedded parts", parts.Close)
	if parts.KafkaAddr != "" {
		cfg.Kafka.Brokers = []string{parts.KafkaAddr}
		cfg.Topics.ReplicationFactor, cfg.Topics.MinInsyncReplicas = 1, 1 // there is one broker
	}
	if parts.RedisAddr != "" {
		cfg.Redis.Addresses = []string{parts.RedisAddr}
		cfg.Redis.AllowNonDurable = cfg.Redis.AllowNonDurable || !parts.Durable
	}
	if parts.ClickHouseAddr != "" {
		cfg.ClickHouse.Addresses = []string{parts.ClickHouseAddr}
	}
	return parts, nil
}

// completeForOne fills in what somebody needs who starts Weft without a configuration: a source to send as, a key to read
// profiles with, and journey files to edit. All are kept in the data directory.
func completeForOne(cfg *config.Config) error {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	if len(cfg.Collector.Sources) == 0 {
		key, err := config.LoadOrCreateSecret(filepath.Join(cfg.DataDir, "write.key"))
		if err != nil {
			return err
		}
		cfg.Collector.Sources = []config.Source{{Name: "web", WriteKey: hex.EncodeToString(key), Brand: cfg.Collector.Brand}}
	}
	if len(cfg.Builder.AccessKeys) == 0 {
		key, err := config.LoadOrCreateSecret(filepath.Join(cfg.DataDir, "access.key"))
		if err != nil {
			return err
		}
		cfg.Builder.AccessKeys = []string{hex.EncodeToString(key)}
	}
	if len(cfg.Builder.AdminKeys) == 0 {
		key, err := config.LoadOrCreateSecret(filepath.Join(cfg.DataDir, "admin.key"))
		if err != nil {
			return err
		}
		cfg.Builder.AdminKeys = []string{hex.EncodeToString(key)}
	}
	if cfg.Activator.Journeys != config.Defaults().Activator.Journeys {
		return nil
	}
	if _, err := os.Stat(cfg.Activator.Journeys); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	cfg.Activator.Journeys = filepath.Join(cfg.DataDir, "journeys")
	return writeJourneys(cfg.Activator.Journeys)
}

// writeJourneys puts the shipped journey files into dir, unless it holds some already: they are the user's then.
func writeJourneys(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("activator.journeys: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return filepath.Ext(e.Name()) == ".yaml" }) {
		return err
	}
	if err := os.CopyFS(dir, journeys.Files); err != nil {
		return fmt.Errorf("activator.journeys: %w", err)
	}
	return nil
}

// addr is where a service of the pipeline listens, or empty.
func (p *pipeline) addr(name string) string {
	for _, s := range p.services {
		if l, ok := s.Service.(interface{ Addr() string }); ok && s.Name == name {
			return l.Addr()
		}
	}
	return ""
}
