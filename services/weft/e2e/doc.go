// Package e2e shows Weft as a whole: the weft binary, each service a process of its own, on real Kafka, Redis and
// ClickHouse, through the doors that everybody uses.
//
// It owns: the integration tests of that kind (build tag integration) and their harness. The harness guarantees that
// every test has topics, Redis keys, a ClickHouse database, secrets and ports of its own, and that nothing is left
// behind: no process, topic, key or database. The servers are those named in WEFT_TEST_KAFKA, WEFT_TEST_REDIS,
// WEFT_TEST_CLICKHOUSE and WEFT_TEST_CLICKHOUSE_HTTP ('make test' starts them). It must not know how a service works:
// it looks at what goes in and what comes out, by HTTP, Kafka, SMTP and ClickHouse.
package e2e
