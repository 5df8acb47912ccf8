// Command chaos proves Weft by violence: the services as separate processes on three Kafka brokers, Redis (or Redis
// Cluster) and ClickHouse, under load, while processes are killed, frozen and restarted, servers die, disks fill, links
// break and clocks jump. What was acknowledged is written down outside of all that; in the end every event, person,
// cart and message is held against it. Exit status 0 only if no promise was broken and everything was looked at.
//
//	chaos --ledger DIR --minutes 3            strikes for three minutes; DIR adds the strikes of its runs up
//	chaos --ledger DIR                        goes on with a run that was itself killed
//
// It must be run in the root of the repository, with bin/weft built. docs/reliability.md says what it found.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/weft-cdp/weft/pkg/embedded"
	"github.com/weft-cdp/weft/scripts/chaos/strikes"
)

// options are those of the command line.
type options struct {
	dir      string
	binary   string
	seed     uint64
	minutes  float64
	strikes  int
	rate     float64
	delay    time.Duration
	patience time.Duration
	away     time.Duration
	cluster  bool
	fresh    bool
	table    bool
}

func main() {
	if code, ok := embedded.Child(os.Args[1:]); ok {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	opt, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	}
	act := run
	if opt.table {
		act = func(_ context.Context, opt options) error { return table(opt.dir) }
	}
	if err := act(ctx, opt); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("chaos", flag.ContinueOnError)
	f.StringVar(&o.dir, "ledger", ".cache/chaos", "directory of the ledger, the sums over runs, and the servers' data and logs")
	f.StringVar(&o.binary, "weft", "bin/weft", "the binary under test")
	f.Uint64Var(&o.seed, "seed", 0, "of the stories and the strikes; 0: another one each time")
	f.Float64Var(&o.minutes, "minutes", 3, "how long to strike")
	f.IntVar(&o.strikes, "strikes", 0, "most strikes on each stage; 0: as many as there is time for")
	f.Float64Var(&o.rate, "visitors", 3, "visitors a second, each with about eight events")
	f.DurationVar(&o.delay, "delay", 20*time.Second, "of the abandoned-cart journey")
	f.DurationVar(&o.patience, "patience", 4*time.Minute, "how long everything may take to come to rest afterwards")
	f.DurationVar(&o.away, "outage", 0, "no strikes: all brokers are gone for this long, under load")
	f.BoolVar(&o.cluster, "cluster", false, "a Redis Cluster of three nodes instead of one Redis")
	f.BoolVar(&o.fresh, "fresh", false, "drop a run that was killed, instead of going on with it")
	f.BoolVar(&o.table, "table", false, "strike nothing: print the sums of the ledger's runs as docs/reliability.md shows them")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%q is no flag", f.Arg(0))
	}
	if o.minutes <= 0 || o.rate <= 0 || o.delay < 15*time.Second {
		return o, errors.New("want --minutes and --visitors above 0, and a --delay of at least 15s, above the oracle's margin for clocks")
	}
	if o.away == 0 && o.minutes < strikes.FirstStrikes.Minutes() {
		return o, fmt.Errorf("want at least %.2f --minutes: what lies behind may be struck for the first time only %s after the beginning",
			strikes.FirstStrikes.Minutes(), strikes.FirstStrikes)
	}
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano())
	}
	for _, p := range []*string{&o.dir, &o.binary} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return o, err
		}
		*p = abs
	}
	if _, err := os.Stat(o.binary); err != nil {
		return o, fmt.Errorf("the binary under test: %w: run 'make build'", err)
	}
	return o, nil
}
