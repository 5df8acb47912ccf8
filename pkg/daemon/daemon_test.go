package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/weft-cdp/weft/pkg/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon bounds what must happen; nothing waits for it to pass.
const soon = 2 * time.Minute

type runFunc func(ctx context.Context) error

func (f runFunc) Run(ctx context.Context) error { return f(ctx) }

// journal notes what happened in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.lines...)
}

func testConfig() config.Config {
	cfg := config.Defaults()
	cfg.Admin.Listen, cfg.Admin.ShutdownTimeout = "127.0.0.1:0", soon
	return cfg
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: soon}
	resp, err := client.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

func TestLifeOfAProcess(t *testing.T) {
	var j journal
	var ready sync.Map
	frames := make(chan *Frame, 1)
	named := func(name string) Named {
		return Named{
			Name: name,
			Service: runFunc(func(ctx context.Context) error {
				<-ctx.Done()
				j.add("stopped " + name)
				return ctx.Err()
			}),
			Ready: func() error {
				if _, ok := ready.Load(name); !ok {
					return errors.New("catching up")
				}
				return nil
			},
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{Config: testConfig(), Name: "test", Version: "v9", Log: zap.NewNop()}, func(_ context.Context, f *Frame) ([]Named, error) {
			code, text := get(t, "http://"+f.AdminAddr()+"/readyz")
			j.add("built " + text)
			if code != http.StatusServiceUnavailable {
				j.add("ready while starting")
			}
			f.OnClose("server", func(context.Context) error {
				_, text := get(t, "http://"+f.AdminAddr()+"/readyz")
				j.add("closed server " + text)
				return nil
			})
			f.OnClose("client", func(context.Context) error { j.add("closed client"); return nil })
			frames <- f
			door := named("door")
			door.Amiss = func() error { return errors.New("a source is down") }
			return []Named{door, named("writer"), {Name: "quiet", Service: named("quiet").Service}}, nil
		})
	}()
	f := <-frames
	admin := "http://" + f.AdminAddr()
	require.Eventually(t, func() bool { return f.Ready() != nil && strings.Contains(f.Ready().Error(), "catching up") }, soon, time.Millisecond)
	code, text := get(t, admin+"/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Equal(t, "door: catching up\nwriter: catching up\n", text)
	ready.Store("door", true)
	ready.Store("writer", true)
	code, text = get(t, admin+"/readyz")
	require.Equal(t, 200, code, text)
	require.Equal(t, "ready\ndoor: a source is down\n", text)
	code, _ = get(t, admin+"/healthz")
	require.Equal(t, 200, code)
	_, text = get(t, admin+"/version")
	require.Equal(t, "v9\n", text)
	_, text = get(t, admin+"/metrics")
	for _, name := range []string{`weft_build_info{version="v9"} 1`, "go_goroutines", "process_resident_memory_bytes"} {
		require.Contains(t, text, name)
	}
	code, _ = get(t, admin+"/debug/pprof/goroutine?debug=1")
	require.Equal(t, 200, code)

	cancel()
	require.NoError(t, <-done)
	require.Equal(t, []string{
		"built starting\n", "stopped door", "stopped writer", "stopped quiet", "closed client", "closed server stopping\n",
	}, j.all())
}

func TestAServicesEndEndsTheProcess(t *testing.T) {
	broken := errors.New("slot is behind the commit: run weft rebuild")
	for name, c := range map[string]struct {
		result error
		want   string
	}{
		"fatal error": {broken, "writer: " + broken.Error()},
		"by itself":   {nil, "writer: ended by itself"},
	} {
		t.Run(name, func(t *testing.T) {
			core, logs := observer.New(zap.ErrorLevel)
			stopped := false
			err := Run(t.Context(), Options{Config: testConfig(), Log: zap.New(core)}, func(context.Context, *Frame) ([]Named, error) {
				return []Named{
					{Name: "door", Service: runFunc(func(ctx context.Context) error { <-ctx.Done(); stopped = true; return nil })},
					{Name: "writer", Service: runFunc(func(context.Context) error { return c.result })},
				}, nil
			})
			var reported Reported
			require.ErrorAs(t, err, &reported)
			require.EqualError(t, err, c.want)
			require.True(t, stopped)
			require.Equal(t, 1, logs.Len(), "logged once")
		})
	}
}

func TestErrorsOfAllPhasesAreJoined(t *testing.T) {
	cfg := testConfig()
	cfg.Admin.ShutdownTimeout = 2 * time.Second // long enough for what does end, which must not look stuck on a slow machine
	release := make(chan struct{})
	ended := make(chan struct{})
	err := Run(t.Context(), Options{Config: cfg, Log: zap.NewNop()}, func(_ context.Context, f *Frame) ([]Named, error) {
		f.OnClose("store", func(context.Context) error { return errors.New("connection lost") })
		f.OnClose("stuck", func(context.Context) error { <-release; return nil })
		return []Named{
			{Name: "deaf", Service: runFunc(func(context.Context) error { defer close(ended); <-release; return nil })},
			{Name: "broken", Service: runFunc(func(context.Context) error { return errors.New("no") })},
		}, nil
	})
	close(release)
	<-ended
	require.EqualError(t, err, "stop deaf: still running after 2s\nbroken: no\nclose stuck: still busy after 2s\nclose store: connection lost")
}

func TestAFailedBuildClosesWhatItOpened(t *testing.T) {
	var j journal
	err := Run(t.Context(), Options{Config: testConfig(), Name: "up", Log: zap.NewNop()}, func(_ context.Context, f *Frame) ([]Named, error) {
		f.OnClose("kafka", func(context.Context) error { j.add("closed"); return nil })
		return nil, errors.New("redis is not durable")
	})
	require.EqualError(t, err, "start up: redis is not durable")
	require.Equal(t, []string{"closed"}, j.all())
}

func TestTheAdminAddressMustBeFree(t *testing.T) {
	cfg := testConfig()
	err := Run(t.Context(), Options{Config: cfg, Log: zap.NewNop()}, func(_ context.Context, f *Frame) ([]Named, error) {
		taken := testConfig()
		taken.Admin.Listen = f.AdminAddr()
		err := Run(t.Context(), Options{Config: taken, Log: zap.NewNop()}, nil)
		require.ErrorContains(t, err, "admin server: listen tcp "+f.AdminAddr())
		return nil, errors.New("done")
	})
	require.ErrorContains(t, err, "done")
}

func TestASignalStopsTheProcess(t *testing.T) {
	err := Run(t.Context(), Options{Config: testConfig(), Log: zap.NewNop()}, func(context.Context, *Frame) ([]Named, error) {
		return []Named{{Name: "door", Service: runFunc(func(ctx context.Context) error {
			if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})}}, nil
	})
	require.NoError(t, err)
}

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	log, err := Logger(config.Log{Level: "info", Format: "json"}, &out)
	require.NoError(t, err)
	log.Debug("not shown")
	log.Info("partition assigned", zap.Duration("after", time.Second))
	var line map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &line), out.String())
	require.Equal(t, "partition assigned", line["message"])
	require.Equal(t, "info", line["level"])
	require.Equal(t, "1s", line["after"])
	require.True(t, strings.HasSuffix(line["time"].(string), "Z"))

	out.Reset()
	log, err = Logger(config.Log{Level: "debug", Format: "console"}, &out)
	require.NoError(t, err)
	log.Debug("shown")
	require.Contains(t, out.String(), "DEBUG\tshown")

	_, err = Logger(config.Log{Level: "loud", Format: "json"}, &out)
	require.ErrorContains(t, err, "log.level")
	_, err = Logger(config.Log{Level: "info", Format: "xml"}, &out)
	require.ErrorContains(t, err, "log.format")
}
