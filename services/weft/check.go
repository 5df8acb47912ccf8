package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/profile"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/services/collector"
)

// checkTimeout bounds each check of a server.
const checkTimeout = 10 * time.Second

func newCheckCommand(a *app) *cobra.Command {
	var printConfig bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, and whether everything can be reached",
		Long: `Check the configuration (every fault at once, each with its path and line), then whether Kafka, Redis and ClickHouse can be
reached, whether the topics and inlets are there, whether Redis keeps what it acknowledges, and the sources with their
mappings and tracking plans, the rules, audience and journey files. Servers without an address are left out: 'weft up'
starts its own. Nothing is changed. Exit status 0 if all is well, else 1.`,
		Example: `  weft check --config weft.yaml
  weft check --print                     the configuration in effect, without secrets`,
		GroupID: groupTools,
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			if printConfig {
				text, err := config.Print(cfg)
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(text)
				return err
			}
			return runChecks(cmd.Context(), cmd.OutOrStdout(), cfg)
		},
	}
	cmd.Flags().BoolVar(&printConfig, "print", false, "print the configuration in effect, without secrets, and check nothing else")
	return cmd
}

// check is one line of the report. skip says why it is not made; empty: it is.
type check struct {
	name string
	skip string
	try  func(ctx context.Context) (string, error)
}

func runChecks(ctx context.Context, out io.Writer, cfg config.Config) error {
	checks := []check{
		{"configuration", "", func(context.Context) (string, error) { return "no faults", nil }},
		{"sources", unlessSources(cfg), func(context.Context) (string, error) { return checkSources(cfg) }},
		{"kafka", unlessGiven(cfg.Kafka.Brokers), func(ctx context.Context) (string, error) { return checkKafka(ctx, cfg) }},
		{"redis", unlessGiven(cfg.Redis.Addresses), func(ctx context.Context) (string, error) { return checkRedis(ctx, cfg) }},
		{"clickhouse", unlessGiven(cfg.ClickHouse.Addresses), func(ctx context.Context) (string, error) { return checkClickHouse(ctx, cfg) }},
		{"identity rules", unlessOwnRules(cfg.Identity.RulesFile), func(context.Context) (string, error) { return checkRules(cfg.Identity) }},
		{"audiences", unlessShipped(cfg.Builder.AudiencesFile), func(context.Context) (string, error) { return checkAudiences(cfg.Builder.AudiencesFile) }},
		{"journeys", unlessOwnJourneys(cfg.Activator.Journeys), func(context.Context) (string, error) { return checkJourneys(cfg.Activator.Journeys) }},
	}
	var failed error
	for _, c := range checks {
		mark, text := "ok  ", c.skip
		if c.skip != "" {
			mark = "-   "
		} else {
			limited, cancel := context.WithTimeout(ctx, checkTimeout)
			var err error
			if text, err = c.try(limited); err != nil {
				mark, text, failed = "FAIL", err.Error(), errSilent
			}
			cancel()
		}
		if _, err := fmt.Fprintf(out, "%s %-14s %s\n", mark, c.name, text); err != nil {
			return err
		}
	}
	return failed
}

func unlessGiven(addresses []string) string {
	if len(addresses) == 0 {
		return "no address: 'weft up' starts its own"
	}
	return ""
}

// unlessOwnJourneys leaves out a default directory that is not there: not every process needs one.
func unlessOwnJourneys(dir string) string {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && dir == config.Defaults().Activator.Journeys {
		return "no directory " + dir + ": 'weft up' makes one of its own"
	}
	return ""
}

func unlessShipped(file string) string {
	if file == "" {
		return "builder.audiences_file is empty: the shipped example"
	}
	return ""
}

func unlessOwnRules(file string) string {
	if file == "" {
		return "identity.rules_file is empty: the shipped rules"
	}
	return ""
}

func unlessSources(cfg config.Config) string {
	if len(sourcesOf(cfg)) == 0 {
		return "none is configured: 'weft up' makes one of its own"
	}
	return ""
}

// checkSources compiles what a collector would: mappings, transformations, tracking plans, and the secrets of webhooks.
func checkSources(cfg config.Config) (string, error) {
	list := sourcesOf(cfg)
	var errs []error
	for _, s := range list {
		_, err := collector.NewPreview(cfg.Collector, s, time.Now)
		if err == nil && s.KindOrDefault() == config.KindWebhook {
			_, err = collector.NewHookReader(s)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", standsIn(s), err))
		}
	}
	return fmt.Sprintf("%d without a fault; sources and tracking plans are read when a collector starts: restart it after a change", len(list)), errors.Join(errs...)
}

func checkAudiences(file string) (string, error) {
	b, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return "", err
	}
	if _, err := profile.ParseAudiences(file, b); err != nil {
		return "", err
	}
	return file + ": no faults", nil
}

func checkKafka(ctx context.Context, cfg config.Config) (string, error) {
	client, err := stream.New(cfg.Kafka, zap.NewNop())
	if err != nil {
		return "", err
	}
	defer client.Close()
	if err := client.Ping(ctx); err != nil {
		return "", err
	}
	specs := cfg.TopicSpecs()
	for _, s := range specs {
		state, err := topicState(ctx, client, s)
		if err != nil {
			return "", err
		}
		if state != topicFine {
			return "", fmt.Errorf("topic %s: %s (see 'weft topics')", s.Name, state)
		}
	}
	inlets := cfg.Collector.KafkaSources()
	for _, in := range inlets {
		// The fence waits for every inlet: one that does not exist holds all messages.
		if _, err := client.PartitionCount(ctx, in.Kafka.Topic); err != nil {
			return "", fmt.Errorf("topic %s of inlet %s: %w", in.Kafka.Topic, in.Name, err)
		}
	}
	return fmt.Sprintf("%v: reached, %d topics with %d partitions, %d inlets", cfg.Kafka.Brokers, len(specs), cfg.Topics.Partitions, len(inlets)), nil
}

func checkRedis(ctx context.Context, cfg config.Config) (string, error) {
	client, err := store.New(cfg.Redis, zap.NewNop())
	if err != nil {
		return "", err
	}
	defer client.Close() //nolint:errcheck // nothing was written
	if err := client.Check(ctx); err != nil {
		return "", err
	}
	if cfg.Redis.AllowNonDurable {
		return fmt.Sprintf("%v: reached; may lose acknowledged work (allow_non_durable)", cfg.Redis.Addresses), nil
	}
	return fmt.Sprintf("%v: reached, keeps what it acknowledges", cfg.Redis.Addresses), nil
}

func checkClickHouse(ctx context.Context, cfg config.Config) (string, error) {
	client, err := warehouse.Open(cfg.ClickHouse)
	if err != nil {
		return "", err
	}
	defer client.Close() //nolint:errcheck // nothing was written
	if err := client.Ping(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("%v: reached", cfg.ClickHouse.Addresses), nil
}

func checkJourneys(dir string) (string, error) {
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("activator.journeys: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return "", fmt.Errorf("activator.journeys: %w", err)
	}
	for _, file := range files {
		if _, faults := journey.Check(file); len(faults) > 0 {
			return "", fmt.Errorf("%s has %d faults, the first: %s (see 'weft journey check')", file, len(faults), faults[0])
		}
	}
	return fmt.Sprintf("%d files in %s without a fault", len(files), dir), nil
}
