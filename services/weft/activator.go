package main

import "github.com/spf13/cobra"

func newActivatorCommand(a *app) *cobra.Command {
	return serviceCommand(a, &cobra.Command{
		Use:   nameActivator,
		Short: "Decide on messages and deliver them",
		Long: `Decides for every abandoned cart whether a reminder is sent, by the journey files of activator.journeys, and delivers it
by e-mail (activator.smtp) or webhook (activator.webhook). Each eligible cart ends in one receipt, sent or not, with the
reason. A changed journey file is taken without a restart.

Needs kafka.brokers and redis.addresses, and the same identity.key_file and collector.unsubscribe_secret_file in all
services.`,
		Example: `  weft activator --config weft.yaml
  WEFT_KAFKA_BROKERS=kafka:9092 WEFT_REDIS_ADDRESSES=redis:6379 weft activator`,
	}, needs{store: true}, makeActivator)
}
