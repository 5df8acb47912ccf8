package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/embedded"
	"github.com/weft-cdp/weft/schemas/clickhouse"
)

const (
	// serveCommand is 'up' in the background.
	serveCommand = "serve"
	envFile      = "env"
	pidFile      = "pid"
	logFile      = "log"
	// upLimit bounds fetching and starting everything on a slow machine.
	upLimit = 10 * time.Minute
	// downLimit bounds an orderly stop.
	downLimit = time.Minute
	poll      = 50 * time.Millisecond
)

// startNative fetches what is missing and starts Apache Kafka, redis-server and libchdb with their data in dir.
func startNative(ctx context.Context, dir string) (servers, error) {
	if err := fetch(ctx); err != nil {
		return servers{}, err
	}
	p, err := embedded.Start(ctx, embedded.Options{
		DataDir: dir, Log: zap.NewNop(),
		Kafka: true, Redis: true, ClickHouse: true, RealKafka: true, NeedRedis: true,
		ClickHouseUsers: map[string][]byte{"weft-analyst.xml": clickhouse.AnalystUser},
	})
	if err != nil {
		return servers{}, err
	}
	return servers{
		kind:  "native (Apache Kafka " + embedded.KafkaVersion + ", redis-server, libchdb " + embedded.ClickHouseVersion + ")",
		kafka: p.KafkaAddr, redis: p.RedisAddr, clickHouse: p.ClickHouseAddr, clickHouseHTTP: p.ClickHouseHTTPAddr,
		stop: p.Close,
	}, nil
}

// fetch runs the scripts that get what is not there.
func fetch(ctx context.Context) error {
	for _, script := range []string{"fetch-clickhouse", "fetch-kafka", "fetch-redis"} {
		cmd := exec.CommandContext(ctx, filepath.Join("scripts", script)) //nolint:gosec // one of three
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", script, err)
		}
	}
	return nil
}

// up runs serve in the background and returns when the servers answer.
func up(dir string) error {
	if pid, err := readPID(dir); err == nil && isServe(pid, dir) {
		text, err := os.ReadFile(filepath.Join(dir, envFile)) //nolint:gosec // the caller's directory
		fmt.Printf("servers are up already; %s:\n%s", filepath.Join(dir, envFile), text)
		return err
	}
	if err := os.Remove(filepath.Join(dir, envFile)); err != nil && !errors.Is(err, fs.ErrNotExist) { // of killed ones
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, logFile)) //nolint:gosec // the caller's directory
	if err != nil {
		return err
	}
	defer log.Close()                              //nolint:errcheck // the child writes it
	cmd := exec.Command(binary, serveCommand, dir) //nolint:gosec // this very binary
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	deadline := time.After(upLimit)
	for {
		text, err := os.ReadFile(filepath.Join(dir, envFile)) //nolint:gosec // the caller's directory
		if err == nil {
			fmt.Printf("servers are up; for tests and weft: . %s\n%s", filepath.Join(dir, envFile), text)
			return nil
		}
		select {
		case err := <-ended:
			said, _ := os.ReadFile(log.Name()) // what there is of it
			return fmt.Errorf("servers did not start (%w): %s", err, bytes.TrimSpace(said))
		case <-deadline:
			return errors.Join(fmt.Errorf("servers did not start within %s; see %s", upLimit, log.Name()), cmd.Process.Signal(syscall.SIGTERM))
		case <-time.After(poll):
		}
	}
}

// serve runs the servers until SIGTERM. The env file exists while they answer.
func serve(dir string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	s, err := startNative(ctx, dir)
	if err != nil {
		return err
	}
	env, pid := filepath.Join(dir, envFile), filepath.Join(dir, pidFile)
	defer func() {
		err = errors.Join(err, s.stop(context.WithoutCancel(ctx)), os.Remove(pid), os.Remove(env))
	}()
	var text bytes.Buffer
	for _, v := range [][2]string{
		{envKafka, s.kafka}, {envRedis, s.redis}, {envClickHouse, s.clickHouse}, {envClickHouseHTTP, s.clickHouseHTTP},
		{"WEFT_KAFKA_BROKERS", s.kafka}, {"WEFT_REDIS_ADDRESSES", s.redis}, {"WEFT_CLICKHOUSE_ADDRESSES", s.clickHouse},
	} {
		fmt.Fprintf(&text, "export %s=%s\n", v[0], v[1])
	}
	if err := os.WriteFile(pid, []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	// Complete, or not there: up waits for it.
	if err := errors.Join(os.WriteFile(env+".new", text.Bytes(), 0o600), os.Rename(env+".new", env)); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// down stops what up has started, and waits for its end.
func down(dir string) error {
	env, pidPath := filepath.Join(dir, envFile), filepath.Join(dir, pidFile)
	pid, err := readPID(dir)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Println("servers are down")
		return nil
	}
	if err != nil {
		return err
	}
	if !isServe(pid, dir) {
		fmt.Println("servers had been killed")
		return errors.Join(os.Remove(env), os.Remove(pidPath))
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop process %d: %w", pid, err)
	}
	deadline := time.After(downLimit)
	for {
		if _, err := os.Stat(env); errors.Is(err, fs.ErrNotExist) {
			fmt.Println("servers are down")
			return nil
		}
		select {
		case <-deadline:
			return fmt.Errorf("process %d did not stop within %s; see %s", pid, downLimit, filepath.Join(dir, logFile))
		case <-time.After(poll):
		}
	}
}

// readPID is the process that serves from dir, or did.
func readPID(dir string) (int, error) {
	path := filepath.Join(dir, pidFile)
	text, err := os.ReadFile(path) //nolint:gosec // the caller's directory
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return pid, nil
}

// isServe says whether that process is still ours: a number may have been given to another since.
func isServe(pid int, dir string) bool {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	return err == nil && bytes.Contains(text, []byte("\x00"+serveCommand+"\x00"+dir+"\x00"))
}
