package activator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/connector"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/suppression"
	"github.com/weft-cdp/weft/pkg/unsubscribe"
)

const (
	// watchEvery is how often the files are looked at: a marketer who saves one sees it taken at once.
	watchEvery = time.Second
	// lookupTimeout bounds the reading of an old version from Redis: a partition waits for it. Afterwards
	// the cart waits, and the partition goes on.
	lookupTimeout = 2 * time.Second
)

// stamp tells whether a file has changed since it was read.
type stamp struct {
	changed time.Time
	size    int64
}

// file is a journey file as last seen.
type file struct {
	stamp   stamp
	journey *journey.Journey // the last good version; nil if there never was one
	faults  []journey.Fault  // of the file as it is now
	twin    bool             // faulty only because another file has its journey's name
}

// rulebook is what the decisions read besides a person's state: journeys, their old versions, the
// suppression list. One goroutine loads; any may read.
type rulebook struct {
	dir       string
	prefix    string
	publicURL string
	secret    []byte
	channels  map[string]bool
	store     *store.Client
	log       *zap.Logger
	metrics   *metrics

	current atomic.Pointer[journey.Decider]

	mu       sync.Mutex
	versions map[string]*journey.Journey // by versionKey, whatever was ever asked for or loaded here

	// Of the loading goroutine.
	files      map[string]*file // by path
	list       *suppression.List
	suppressed *suppression.Entries

	erased *suppression.Erased // people who were erased are never written to either
}

// newRulebook looks at the directory and the suppression list, so that a wrong path is told at once.
func newRulebook(cfg config.Config, secret []byte, senders map[string]connector.Sender, deps Deps, m *metrics) (*rulebook, error) {
	b := &rulebook{
		dir: cfg.Activator.Journeys, prefix: cfg.Topics.Prefix,
		publicURL: cfg.Activator.PublicURL, secret: secret, channels: map[string]bool{}, store: deps.Store, log: deps.Log, metrics: m,
		versions: map[string]*journey.Journey{}, files: map[string]*file{},
		erased: suppression.NewErased(deps.Store, cfg.Topics.Prefix, suppression.RulesOf(cfg.Identity, deps.Store, keyed.DeploymentKey(cfg.Topics.Set()))),
	}
	for name := range senders {
		b.channels[name] = true
	}
	if info, err := os.Stat(b.dir); err != nil {
		return nil, fmt.Errorf("activator.journeys: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("activator.journeys: %s is not a directory", b.dir)
	}
	var err error
	if b.list, err = suppression.Open(cfg.Activator.SuppressionFile); err != nil {
		return nil, fmt.Errorf("activator.suppression_file: %w", err)
	}
	return b, nil
}

func (b *rulebook) decider() *journey.Decider { return b.current.Load() }

func (b *rulebook) loaded() bool { return b.current.Load() != nil }

// versionKey is the Redis key of a version's source. Its content never changes.
func (b *rulebook) versionKey(name, version string) string {
	return b.prefix + "journeys:" + name + ":" + version
}

// fileKey is the Redis key of the last good source of a file.
func (b *rulebook) fileKey(path string) string {
	return b.prefix + "journey-files:" + filepath.Base(path)
}

// load reads everything for the first time and waits for Redis while it is away. A file that is faulty and
// has never been good here is an error that names every fault: nothing would run of it.
func (b *rulebook) load(ctx context.Context) error {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		err := b.reload(ctx)
		if err == nil {
			break
		}
		b.log.Warn("journeys can not be loaded yet", zap.Error(err))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
	var never journey.Faults
	for _, path := range slices.Sorted(maps.Keys(b.files)) {
		if f := b.files[path]; f.journey == nil {
			never = append(never, f.faults...)
		}
	}
	if len(never) > 0 {
		b.current.Store(nil)
		return never
	}
	return nil
}

// watch takes changed files until ctx ends.
func (b *rulebook) watch(ctx context.Context) error {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		text := ""
		if err := b.reload(ctx); err != nil {
			text = err.Error()
		}
		if text != last && text != "" && ctx.Err() == nil { // said once
			b.log.Error("changed files can not be taken, the former ones go on", zap.String("error", text))
		}
		last = text
	}
}

// follow takes people who were erased until ctx ends.
func (b *rulebook) follow(ctx context.Context) error {
	b.erased.Run(ctx, b.log)
	return nil
}

// reload takes what has changed. An error leaves everything as it was, to be tried again.
func (b *rulebook) reload(ctx context.Context) error {
	files, changed, err := b.scan(ctx)
	if err != nil {
		return err
	}
	if _, err := b.list.Refresh(); err != nil {
		return fmt.Errorf("activator.suppression_file: %w", err)
	}
	list := b.list.Entries()
	if !changed && list == b.suppressed && b.loaded() {
		return nil
	}
	// Every version is in Redis before the first cart can be armed with it.
	for path, f := range files {
		if f.journey == nil || b.files[path] != nil && b.files[path].journey == f.journey {
			continue
		}
		if _, err := b.store.SetNX(ctx, b.versionKey(f.journey.Name, f.journey.Version), f.journey.Source, 0); err != nil {
			return fmt.Errorf("keep journey %s version %s: %w", f.journey.Name, f.journey.Version, err)
		}
		if err := b.store.Set(ctx, b.fileKey(path), f.journey.Source, 0); err != nil {
			return fmt.Errorf("keep journey %s: %w", f.journey.Name, err)
		}
	}
	b.tell(files)
	b.files, b.suppressed = files, list
	b.publish()
	return nil
}

// scan reads the directory: files that have not changed stand as they were, faulty ones keep their last
// good version.
func (b *rulebook) scan(ctx context.Context) (files map[string]*file, changed bool, err error) {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return nil, false, fmt.Errorf("activator.journeys: %w", err)
	}
	files = map[string]*file{}
	for _, e := range entries {
		path := filepath.Join(b.dir, e.Name())
		if ext := filepath.Ext(path); e.IsDir() || ext != ".yaml" && ext != ".yml" {
			continue
		}
		info, err := os.Stat(path) // follows links: a mounted configuration is one
		if errors.Is(err, os.ErrNotExist) {
			continue // gone since
		}
		if err != nil {
			return nil, false, fmt.Errorf("activator.journeys: %w", err)
		}
		at := stamp{info.ModTime(), info.Size()}
		old := b.files[path]
		if old != nil && old.stamp == at && !old.twin {
			files[path] = old
			continue
		}
		changed = changed || old == nil || old.stamp != at
		f := &file{stamp: at} // a twin is read again, too: the other file may be gone
		f.journey, f.faults = journey.Check(path)
		files[path] = f
	}
	changed = changed || len(files) != len(b.files)
	if !changed {
		return files, false, nil
	}
	b.refuseTwins(files)
	return files, true, b.fallBack(ctx, files)
}

// refuseTwins faults the second file of a journey's name; the one that has it already goes first.
func (b *rulebook) refuseTwins(files map[string]*file) {
	owner := map[string]string{}
	paths := slices.Sorted(maps.Keys(files))
	for _, path := range paths {
		if f := files[path]; f.journey != nil && b.files[path] == f {
			owner[f.journey.Name] = path
		}
	}
	for _, path := range paths {
		f := files[path]
		if f.journey == nil {
			continue
		}
		if first, taken := owner[f.journey.Name]; taken && first != path {
			files[path] = &file{stamp: f.stamp, twin: true, faults: []journey.Fault{{
				File: path, Field: "name", Message: fmt.Sprintf("%q is the name of the journey in %s", f.journey.Name, first),
			}}}
			continue
		}
		owner[f.journey.Name] = path
	}
}

// fallBack gives faulty files their last good version, from memory or, after a restart, from Redis.
func (b *rulebook) fallBack(ctx context.Context, files map[string]*file) error {
	running := map[string]bool{}
	for _, f := range files {
		if f.journey != nil {
			running[f.journey.Name] = true
		}
	}
	for path, f := range files {
		if f.journey != nil {
			continue
		}
		var last *journey.Journey
		if old := b.files[path]; old != nil {
			last = old.journey
		} else {
			src, err := b.store.Get(ctx, b.fileKey(path))
			if err != nil {
				return fmt.Errorf("look for the last good version of %s: %w", path, err)
			}
			if src != nil {
				last, _ = journey.Parse(path, src) // one that this version of Weft refuses is none
			}
		}
		if last != nil && !running[last.Name] {
			f.journey = last
			running[last.Name] = true
		}
	}
	return nil
}

// tell logs what is new: faults with their lines, and versions taken.
func (b *rulebook) tell(files map[string]*file) {
	n := 0
	for _, path := range slices.Sorted(maps.Keys(files)) {
		f, old := files[path], b.files[path]
		n += len(f.faults)
		if f == old || old != nil && f.twin && old.twin && f.stamp == old.stamp {
			continue
		}
		for _, fault := range f.faults {
			b.log.Error("journey file is faulty, its last good version goes on", zap.Stringer("fault", fault))
		}
		if j := f.journey; j != nil && (old == nil || old.journey != j) {
			b.log.Info("journey loaded", zap.String("journey", j.Name), zap.String("version", j.Version), zap.String("file", path))
		}
	}
	for path, old := range b.files {
		if files[path] == nil && old.journey != nil {
			b.log.Info("journey file is gone: it arms no more, running carts go on", zap.String("journey", old.journey.Name), zap.String("file", path))
		}
	}
	b.metrics.faults.Set(float64(n))
}

// publish makes the decider that decisions are made with from now on.
func (b *rulebook) publish() {
	var js []*journey.Journey
	b.mu.Lock()
	for _, path := range slices.Sorted(maps.Keys(b.files)) {
		if j := b.files[path].journey; j != nil {
			js = append(js, j)
			b.versions[b.versionKey(j.Name, j.Version)] = j
		}
	}
	b.mu.Unlock()
	suppressed := b.suppressed
	b.current.Store(&journey.Decider{
		Journeys: js, Version: b.version, Channels: b.channels, Unsubscribe: b.unsubscribe,
		Suppressed: func(address string) bool { return suppressed.Has(address) || b.erased.HasAddress("", address) },
	})
	b.metrics.journeys.Set(float64(len(js)))
	b.metrics.listed.Set(float64(suppressed.Len()))
	b.metrics.reloads.Inc()
}

// version finds a journey by its version, in memory or in Redis. What a version is never changes, so that
// decisions stay a function of the state.
func (b *rulebook) version(name, version string) (*journey.Journey, error) {
	key := b.versionKey(name, version)
	b.mu.Lock()
	j, known := b.versions[key]
	b.mu.Unlock()
	if known {
		return j, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	src, err := b.store.Get(ctx, key)
	if err != nil {
		b.log.Warn("version of a journey can not be read, its carts wait", zap.String("journey", name), zap.String("version", version), zap.Error(err))
		return nil, fmt.Errorf("read journey %s version %s: %w", name, version, err)
	}
	if src != nil {
		var faults []journey.Fault
		if j, faults = journey.Parse(key, src); len(faults) > 0 {
			b.log.Error("stored journey is refused by this version of weft", zap.Error(journey.Faults(faults)))
		}
	}
	b.mu.Lock()
	b.versions[key] = j // nil too: versions are stored before they arm, so what is missing stays missing
	b.mu.Unlock()
	return j, nil
}

// unsubscribe makes the signed link of a message. Without an address there is nothing to unsubscribe.
func (b *rulebook) unsubscribe(r *journey.Request) string {
	if r.To == "" {
		return ""
	}
	return unsubscribe.URL(b.publicURL, b.secret, unsubscribe.Claim{
		Brand: r.Brand, Channel: r.Channel, Profile: r.Profile, Address: r.To, Receipt: r.Receipt,
		IssuedAt: time.UnixMilli(r.DecidedAt).UTC(),
	})
}
