package main

import "github.com/spf13/cobra"

func newCollectorCommand(a *app) *cobra.Command {
	return serviceCommand(a, &cobra.Command{
		Use:   nameCollector,
		Short: "The doors: take events over HTTP and from Kafka topics",
		Long: `The doors: takes events over HTTP (Segment's calls under /v1, on collector.listen) and from Kafka topics (the inbox, and
those of collector.inlets), checks and stamps them, and hands them on in events.collected. A call is answered 200 only
after Kafka has the events; what is invalid goes to events.rejected with the reason.

Needs kafka.brokers, and somebody to send: collector.sources. With redis.addresses and a disk (collector.spool_dir) it goes
on while Kafka is away: events are then answered 200 when they are on the disk, and handed on later ('weft spool').`,
		Example: `  weft collector --config weft.yaml
  WEFT_KAFKA_BROKERS=kafka:9092 weft collector`,
	}, needs{spool: true}, makeCollector)
}
