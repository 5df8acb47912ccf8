//go:build integration

package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// servers are those that the tests share.
type servers struct{ kafka, redis, clickHouse, clickHouseHTTP string }

// root is the repository.
const root = "../../.."

// buildLimit bounds a build with nothing in Go's cache on a small machine.
const buildLimit = 10 * time.Minute

// weft is the binary under test, and shared the servers; TestMain sets both, once.
var (
	weft   string
	shared servers
)

func TestMain(m *testing.M) { os.Exit(runAll(m)) }

func runAll(m *testing.M) int {
	for name, address := range map[string]*string{
		"WEFT_TEST_KAFKA": &shared.kafka, "WEFT_TEST_REDIS": &shared.redis,
		"WEFT_TEST_CLICKHOUSE": &shared.clickHouse, "WEFT_TEST_CLICKHOUSE_HTTP": &shared.clickHouseHTTP,
	} {
		if *address = os.Getenv(name); *address == "" {
			fmt.Fprintf(os.Stderr, "%s must name host:port of a real server ('make test' sets it)\n", name)
			return 1
		}
	}
	dir, err := os.MkdirTemp("", "weft-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a directory of temporary files
	weft = filepath.Join(dir, "weft")
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-o", weft, "./services/weft")
	build.Dir, build.Stdout, build.Stderr = root, os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build weft:", err)
		return 1
	}
	// Those that run side by side mostly wait for moments of their story: more of them than there are processors may.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
