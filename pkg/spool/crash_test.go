package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/pkg/spool/registry"
	"github.com/weft-cdp/weft/pkg/stream"
)

var errCrashed = errors.New("the machine is gone")

// fragile is a disk whose machine goes down after some bytes. What was written and not synced is there in part.
type fragile struct {
	mu    sync.Mutex
	left  int // bytes until it goes down
	files []*fragileFile
}

type fragileFile struct {
	disk            *fragile
	path            string
	f               *os.File
	written, synced int64
}

func (d *fragile) create(path string) (File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left <= 0 {
		return nil, errCrashed
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	own := &fragileFile{disk: d, path: path, f: f}
	d.files = append(d.files, own)
	return own, nil
}

func (f *fragileFile) Write(p []byte) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	n := max(0, min(len(p), f.disk.left))
	f.disk.left -= len(p)
	n, err := f.f.Write(p[:n])
	f.written += int64(n)
	if n < len(p) {
		err = errors.Join(err, errCrashed)
	}
	return n, err
}

func (f *fragileFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.left--; f.disk.left < 0 {
		return errCrashed
	}
	f.synced = f.written
	return nil
}

func (f *fragileFile) Truncate(int64) error { return errCrashed }
func (f *fragileFile) Close() error         { return f.f.Close() }

// Whatever byte the machine goes down at, and however often: what was acknowledged is handed on, in the order of its
// sender; and nothing that was never sent.
func TestNothingAcknowledgedIsLostInCrashes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "spool")
		require.NoError(t, err)
		defer func() { require.NoError(t, os.RemoveAll(dir)) }()
		k, reg := newKafka(), &register{entries: map[string]registry.Entry{}}
		opt := Options{
			Dir: dir, MaxBytes: rapid.Int64Range(3000, 30_000).Draw(t, "max"), Topics: []string{"a", "b"}, Partitions: partitions,
			Registry: reg, Producer: k, Log: zap.NewNop(),
		}
		acked := map[string][]string{} // by key
		sent := map[string]bool{}
		n := 0
		for life := range rapid.IntRange(1, 4).Draw(t, "lives") {
			disk := &fragile{left: rapid.IntRange(0, 6000).Draw(t, "bytes")}
			opt.Create = disk.create
			s, err := Open(opt)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { defer close(done); _ = s.Run(ctx) }()
			k.set(true)
			for range rapid.IntRange(0, 25).Draw(t, "steps") {
				switch rapid.IntRange(0, 9).Draw(t, "step") {
				case 0:
					k.set(false)
				case 1:
					k.set(true)
				default:
					key := fmt.Sprint("k", rapid.IntRange(0, 4).Draw(t, "key"))
					var recs []stream.Record
					var values []string
					for range rapid.IntRange(1, 3).Draw(t, "records") {
						n++
						values = append(values, fmt.Sprintf("%s:%d:%d", key, life, n))
						recs = append(recs, stream.Record{Key: []byte(key), Value: []byte(values[len(values)-1])})
						sent[values[len(values)-1]] = true
					}
					err := s.Sender(0, way{k, "a"}, time.Millisecond).SendAll(context.Background(), recs)
					if err == nil {
						acked[key] = append(acked[key], values...)
					}
				}
			}
			cancel()
			<-done
			require.NoError(t, s.Close())
			for _, f := range disk.files { // of what was not synced, some is not there
				if info, err := os.Stat(f.path); err == nil && info.Size() > f.synced {
					require.NoError(t, os.Truncate(f.path, rapid.Int64Range(f.synced, info.Size()).Draw(t, "kept")))
				}
			}
			if rapid.Bool().Draw(t, "position lost") {
				_ = os.Remove(dir + "/" + positionFile)
			}
		}
		k.set(false)
		opt.Create = nil
		s, err := Open(opt)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Run(ctx) }()
		deadline := time.Now().Add(patience)
		for s.Behind() > 0 {
			require.True(t, time.Now().Before(deadline), "not drained")
			time.Sleep(time.Millisecond)
		}
		cancel()
		<-done
		require.NoError(t, s.Close())
		for v := range k.all() {
			require.True(t, sent[v], "%s was never sent", v)
		}
		for key, want := range acked {
			var first []string // without repeats
			for _, v := range k.log("a", partitionOf(key)) {
				if slices.Contains(want, v) && !slices.Contains(first, v) {
					first = append(first, v)
				}
			}
			require.Equal(t, want, first, "of %s", key)
		}
	})
}
