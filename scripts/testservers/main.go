// Command testservers gives a command real servers: Kafka, Redis and ClickHouse, those whose addresses are given in the
// environment, else in Docker, else native ones that it fetches and starts. It says which, and leaves nothing running.
//
//	testservers run -- CMD ARGS...   start, run CMD with the addresses in WEFT_TEST_..., stop
//	testservers up [DIR]             start native ones, write DIR/env, and return
//	testservers down [DIR]           stop them
//
// It must be run in the root of the repository. WEFT_TEST_SERVERS=docker or =native takes no other.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/weft-cdp/weft/pkg/embedded"
)

// defaultDir is where 'up' keeps data and the env file.
const defaultDir = ".cache/native"

// The variables that integration tests read.
const (
	envKafka          = "WEFT_TEST_KAFKA"
	envRedis          = "WEFT_TEST_REDIS"
	envClickHouse     = "WEFT_TEST_CLICKHOUSE"
	envClickHouseHTTP = "WEFT_TEST_CLICKHOUSE_HTTP"
	envServers        = "WEFT_TEST_SERVERS"
)

// servers are addresses; an empty one has not been started.
type servers struct {
	kind                                     string // as printed
	kafka, redis, clickHouse, clickHouseHTTP string
	stop                                     func(context.Context) error
}

// environment is what tests, and a weft of yours, need to find the servers.
func (s servers) environment() map[string]string {
	env := map[string]string{
		envKafka: s.kafka, envRedis: s.redis, envClickHouse: s.clickHouse, envClickHouseHTTP: s.clickHouseHTTP,
	}
	maps.DeleteFunc(env, func(_, address string) bool { return address == "" })
	return env
}

func main() {
	if code, ok := embedded.Child(os.Args[1:]); ok {
		os.Exit(code)
	}
	code, err := command(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "testservers:", err)
	}
	os.Exit(code)
}

func command(args []string) (int, error) {
	dir := defaultDir
	if len(args) == 2 {
		dir = args[1]
	}
	switch {
	case len(args) > 2 && args[0] == "run" && args[1] == "--":
		return run(args[2:])
	case len(args) > 2 || len(args) == 0:
	case args[0] == "up":
		return status(up(dir))
	case args[0] == serveCommand:
		return status(serve(dir))
	case args[0] == "down":
		return status(down(dir))
	}
	return 2, errors.New("want: run -- CMD ARGS..., up [DIR], or down [DIR]")
}

func status(err error) (int, error) {
	if err != nil {
		return 1, err
	}
	return 0, nil
}

// run starts what is not given, runs the command and returns its exit status.
func run(argv []string) (code int, err error) {
	// The terminal's Ctrl-C reaches the command too: it ends, and then the servers do.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	s, err := start(ctx)
	if err != nil {
		return 1, err
	}
	defer func() {
		if stopErr := s.stop(context.WithoutCancel(ctx)); stopErr != nil {
			code, err = max(code, 1), errors.Join(err, stopErr)
		}
	}()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // what it is for
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = os.Environ()
	env := s.environment()
	for _, name := range slices.Sorted(maps.Keys(env)) {
		cmd.Env = append(cmd.Env, name+"="+env[name])
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil // it has said why
	}
	return status(err)
}

// start returns servers for all three: given ones, else Docker's, else native.
func start(ctx context.Context) (servers, error) {
	given := servers{
		kind: "given", kafka: os.Getenv(envKafka), redis: os.Getenv(envRedis),
		clickHouse: os.Getenv(envClickHouse), clickHouseHTTP: os.Getenv(envClickHouseHTTP),
		stop: func(context.Context) error { return nil },
	}
	if given.kafka != "" && given.redis != "" && given.clickHouse != "" && given.clickHouseHTTP != "" {
		given.announce()
		return given, nil
	}
	if len(given.environment()) > 0 {
		return servers{}, fmt.Errorf("give all of %s, %s, %s and %s, or none", envKafka, envRedis, envClickHouse, envClickHouseHTTP)
	}
	only := os.Getenv(envServers)
	if only != "" && only != "docker" && only != "native" {
		return servers{}, fmt.Errorf("%s: want docker or native, found %q", envServers, only)
	}
	if only != "native" {
		s, err := startDocker(ctx)
		if err == nil {
			s.announce()
			return s, nil
		}
		if only == "docker" || ctx.Err() != nil {
			return servers{}, err
		}
		fmt.Fprintf(os.Stderr, "testservers: not in Docker (%v): native servers\n", firstLine(err))
	}
	dir, err := os.MkdirTemp("", "weft-testservers-")
	if err != nil {
		return servers{}, err
	}
	s, err := startNative(ctx, dir)
	if err != nil {
		return servers{}, errors.Join(err, os.RemoveAll(dir))
	}
	stopParts := s.stop
	s.stop = func(ctx context.Context) error { return errors.Join(stopParts(ctx), os.RemoveAll(dir)) }
	s.announce()
	return s, nil
}

func (s servers) announce() {
	fmt.Fprintf(os.Stderr, "servers: %s; Kafka %s, Redis %s, ClickHouse %s\n", s.kind, s.kafka, s.redis, s.clickHouse)
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
