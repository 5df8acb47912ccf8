package main

import "github.com/spf13/cobra"

func newWriterCommand(a *app) *cobra.Command {
	return serviceCommand(a, &cobra.Command{
		Use:   nameWriter,
		Short: "Write everything into ClickHouse, exactly once",
		Long: `Writes events, identities, profiles and messages into ClickHouse, each exactly once. Applies the schema first (tables and
views in clickhouse.database, which is made if it is missing).

Needs kafka.brokers and clickhouse.addresses.`,
		Example: `  weft journey-writer --config weft.yaml
  WEFT_KAFKA_BROKERS=kafka:9092 WEFT_CLICKHOUSE_ADDRESSES=clickhouse:9000 weft journey-writer`,
	}, needs{warehouse: true}, makeWriter)
}
