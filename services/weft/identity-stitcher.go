package main

import "github.com/spf13/cobra"

func newStitcherCommand(a *app) *cobra.Command {
	return serviceCommand(a, &cobra.Command{
		Use:   nameStitcher,
		Short: "Work out who is behind each event",
		Long: `Works out who is behind each event, by the identifiers it carries and those known to belong together, drops duplicates,
and hands events on in events.identified with the profile's id. Every merge of two profiles is published with its evidence.

It also carries out what operators say of identities ('weft identity split' and its like), of which a split needs
clickhouse.addresses: there the events are that it tells again.

Needs kafka.brokers and redis.addresses, and the same identity.key_file in all services.`,
		Example: `  weft identity-stitcher --config weft.yaml
  WEFT_KAFKA_BROKERS=kafka:9092 WEFT_REDIS_ADDRESSES=redis:6379 weft identity-stitcher`,
	}, needs{store: true, history: true}, makeStitcher)
}
