package main

import "github.com/spf13/cobra"

func newBuilderCommand(a *app) *cobra.Command {
	return serviceCommand(a, &cobra.Command{
		Use:   nameBuilder,
		Short: "Keep a live profile of each person, and answer for it",
		Long: `Keeps a live profile of each person: traits, counts, orders, revenue, the open cart, audiences. Changes go to
profiles.changed and audiences.changed; GET /v1/profiles/TYPE/VALUE on builder.listen answers for a profile, and with
/orders behind it for the orders one by one, with one of builder.access_keys as bearer token. Where clickhouse.addresses
is given, GET /v1/identity/show/TYPE/VALUE and its like tell who somebody is, and why, with one of builder.admin_keys.

Needs kafka.brokers and redis.addresses, and the same identity.key_file in all services.`,
		Example: `  weft profile-builder --config weft.yaml
  WEFT_KAFKA_BROKERS=kafka:9092 WEFT_REDIS_ADDRESSES=redis:6379 weft profile-builder`,
	}, needs{store: true, history: true}, makeBuilder)
}
