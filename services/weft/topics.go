package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// topicsTimeout bounds creating topics on a slow cluster.
const topicsTimeout = time.Minute

func newTopicsCommand(a *app) *cobra.Command {
	var checkOnly bool
	cmd := &cobra.Command{
		Use:   "topics",
		Short: "Create the missing topics and check all of them",
		Long: `Create the topics of Weft that are missing, as the section topics of the configuration says, and check that all have the
configured partition count and take events of collector.max_event_bytes. Of topics that exist nothing is changed but a
max.message.bytes that is too low for that. The topics of your inlets are yours: they are shown, not
created. With --check nothing is created. Exit status 1 if a topic is missing, has another partition
count or takes too little.`,
		Example: `  weft topics --config weft.yaml
  weft topics --check`,
		GroupID: groupTools,
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			if len(cfg.Kafka.Brokers) == 0 {
				return missing("kafka.brokers")
			}
			client, err := stream.New(cfg.Kafka, zap.NewNop())
			if err != nil {
				return err
			}
			defer client.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), topicsTimeout)
			defer cancel()
			if !checkOnly {
				if err := client.EnsureTopics(ctx, cfg.TopicSpecs(), cfg.Topics); err != nil {
					return err
				}
			}
			return printTopics(ctx, cmd.OutOrStdout(), client, cfg)
		},
	}
	cmd.Flags().BoolVar(&checkOnly, "check", false, "create nothing")
	return cmd
}

// printTopics lists the topics and returns errSilent if one of Weft's own is not as configured.
func printTopics(ctx context.Context, out io.Writer, client *stream.Client, cfg config.Config) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	wrong := false
	for _, s := range cfg.TopicSpecs() {
		state, err := topicState(ctx, client, s)
		if err != nil {
			return err
		}
		wrong = wrong || state != topicFine
		_, _ = fmt.Fprintf(w, "%s\t%d partitions\t%s\n", s.Name, s.Partitions, state) // Flush tells
	}
	for _, in := range cfg.Collector.KafkaSources() {
		var state string
		if n, err := client.PartitionCount(ctx, in.Kafka.Topic); errors.Is(err, stream.ErrUnknownTopic) {
			state = "yours; does not exist yet"
		} else if err != nil {
			return err
		} else {
			state = fmt.Sprintf("yours; %d partitions", n)
		}
		_, _ = fmt.Fprintf(w, "%s\tinlet %s\t%s\n", in.Kafka.Topic, in.Name, state)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if wrong {
		return errSilent
	}
	return nil
}

const topicFine = "ok"

func topicState(ctx context.Context, client *stream.Client, s topic.Spec) (string, error) {
	n, err := client.PartitionCount(ctx, s.Name)
	switch {
	case errors.Is(err, stream.ErrUnknownTopic):
		return "missing", nil
	case err != nil:
		return "", err
	case n != s.Partitions:
		return fmt.Sprintf("has %d partitions: the count is fixed for a deployment's life, use another prefix", n), nil
	}
	limits, err := client.MessageLimits(ctx, []string{s.Name})
	if err != nil {
		return "", err
	}
	if limit, known := limits[s.Name]; known && limit < s.RecordBytes {
		return fmt.Sprintf("max.message.bytes is %d, too low for events of collector.max_event_bytes: want %d or more", limit, s.RecordBytes), nil
	}
	return topicFine, nil
}
