package writer

import (
	"fmt"
	"time"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/topic"
)

const (
	// batchBytes ends a batch, so that a partition that catches up on large events stays within memory:
	// about 20,000 events of 800 bytes.
	batchBytes = 16 << 20
	// maxOpenBytes is what the open ranges of all partitions of a process may hold together; beyond it a range
	// ends as soon as it has minOpenBytes. Rows take about as much memory as the records they are made of.
	maxOpenBytes = 32 << 20
	// minOpenBytes keeps the inserts large, about a thousand events, when there are many partitions to catch
	// up on.
	minOpenBytes = 1 << 20
	// insertDeadline is how long after its announcement a range may be sent, by whomever; then what is
	// stored of it is read back, and it is announced anew.
	insertDeadline = time.Minute
	// clockSkew is how far apart the clocks of two processes may be.
	clockSkew = 30 * time.Second
	// tokenWindow is non_replicated_deduplication_window of the tables (schemas/clickhouse): how many
	// inserts back a token is known.
	tokenWindow = 10_000
	// tokenReserve is the share of the window that is used: an insert over several months of receipt takes
	// an entry for each.
	tokenReserve = 2
	// minSpacing is the least time between two inserts of one partition: ClickHouse wants few and large
	// ones, and the window must hold all that one insert can be late for.
	minSpacing = 100 * time.Millisecond
	// shutdownGrace is how long an insert and its acknowledgement may still take when the partition is lost.
	shutdownGrace = 5 * time.Second
	// idleCommit is how often the commit is repeated on a partition where nothing happens, so that the
	// group's offsets do not expire.
	idleCommit = 30 * time.Second
	// firstRetry and maxRetry bound the pause between attempts of one insert.
	firstRetry = 100 * time.Millisecond
	maxRetry   = 5 * time.Second
	// tailRecords is how far back source positions are read again when the group's offsets have expired:
	// more than any producer has in flight.
	tailRecords = 10_000
	// tailRange is how many offsets back, at least, the range that was stored last is looked for when the
	// group's offsets have expired: twice the default of batch_rows, since offsets may have gaps, and
	// batch_rows may have been larger.
	tailRange = 100_000
	// readyLag is how many records behind a partition may be and still count as caught up.
	readyLag = 10_000
	// reloadSpacing is the least time between two loads of the dictionary of persons.
	reloadSpacing = 500 * time.Millisecond
)

// limits of one partition's batches and inserts.
type limits struct {
	rows     int           // per batch
	bytes    int           // per batch, keys and values
	flush    time.Duration // longest wait for a batch to fill
	insert   time.Duration // the server's limit for one insert
	deadline time.Duration // from announcement to sending
	skew     time.Duration // between the clocks of two processes
	spacing  time.Duration // between inserts
	grace    time.Duration
}

// newLimits takes the configuration and sees to it that the window of tokens holds all inserts into a
// table, over all partitions of its topic, that can come between an insert's announcement and its end.
func newLimits(w config.Writer, partitions int) (limits, error) {
	if w.BatchRows <= 0 || w.FlushInterval <= 0 || w.InsertTimeout < time.Second {
		return limits{}, fmt.Errorf("writer: batch_rows %d and flush_interval %s must be positive, insert_timeout %s at least 1s",
			w.BatchRows, w.FlushInterval, w.InsertTimeout)
	}
	l := limits{
		rows: w.BatchRows, bytes: batchBytes, flush: w.FlushInterval, insert: w.InsertTimeout,
		deadline: insertDeadline, skew: clockSkew, grace: shutdownGrace,
	}
	l.spacing = max(minSpacing, time.Duration(partitions)*(l.deadline+l.skew+l.insert)*tokenReserve/tokenWindow)
	return l, nil
}

// checkMetadata refuses a deployment whose announcements could outgrow Kafka's limit. Stages have the given
// number of partitions, but for those in others; an inlet's topic that gets more partitions later counts at
// the next start.
func checkMetadata(in input, partitions int, others map[string]int) error {
	counts := make(map[string]int, len(in.stages))
	for _, stage := range in.stages {
		counts[stage] = partitions
		if n, ok := others[stage]; ok {
			counts[stage] = n
		}
	}
	if n := worstMetadata(counts); n > MaxMetadata {
		return fmt.Errorf("writer: with source partitions %v an announcement on %s can take %d bytes, more than offset.metadata.max.bytes (%d): use fewer partitions",
			counts, in.topic, n, MaxMetadata)
	}
	return nil
}

// input is one topic that is written, and whose source positions its records carry.
type input struct {
	topic  string
	stages []string
	kind   kind
}

// kind is how the records of a topic become rows.
type kind int

const (
	kindEvents kind = iota
	kindRejected
	kindProfiles
	kindAudiences
	kindRequested
	kindSettled
	kindLinked
)

// inputs is every topic that is written. events.collected is not: what becomes of its records is on
// events.identified or events.rejected.
func inputs(cfg config.Config, t topic.Set) []input {
	rejecting := []string{topic.StageStitcher, topic.StageBuilder, topic.StageDecide, topic.StageDeliver,
		topic.StageCollector + "/" + t.EventsInbox()}
	for _, s := range cfg.Collector.KafkaSources() {
		rejecting = append(rejecting, inletStage(s.Kafka.Topic))
	}
	return []input{
		{t.EventsIdentified(), []string{topic.StageStitcher, topic.StageCommands}, kindEvents},
		{t.EventsRejected(), rejecting, kindRejected},
		{t.ProfilesChanged(), []string{topic.StageBuilder}, kindProfiles},
		{t.AudiencesChanged(), []string{topic.StageBuilder}, kindAudiences},
		{t.ActivationsRequested(), []string{topic.StageDecide}, kindRequested},
		{t.ActivationsSettled(), []string{topic.StageDecide, topic.StageDeliver}, kindSettled},
		{t.IdentitiesLinked(), []string{topic.StageStitcher, topic.StageCommands}, kindLinked},
	}
}

// inletStage is the stage in the source positions of what the collector reads from an inlet's topic.
func inletStage(name string) string { return topic.StageCollector + "/" + name }
