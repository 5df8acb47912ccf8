// Package oracle says what is wrong after a run of chaos: it holds what ClickHouse and Kafka have against the ledger.
//
// It owns: the truth that follows from the shop's stories and the ledger alone, the questions to ClickHouse, and their
// comparison, promise by promise (docs/architecture.md section 10). It guarantees that a verdict without violations
// means that every promise that it names was looked at, on every event, person and cart of the run. It asks no
// service and no metric. It must not know what was hurt.
package oracle
