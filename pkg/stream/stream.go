// Package stream moves records between Weft and Kafka: topics, offsets, acknowledged writes, verified
// reads, and the ownership of partitions. It is the only importer of kafka-go.
//
// It owns: connections, the metadata of the cluster, record batches on the wire, consumer groups, retries.
//
// It guarantees:
//   - Produce returns nil only when all in-sync replicas have the records; per partition one request is in
//     flight and nothing is sent past a failed one, so that no gap can open (architecture section 4, rule 1).
//     A request whose answer was lost is sent again and stored once (lane.go). Repeats remain possible where a
//     caller repeats a call or the broker has forgotten the producer: readers drop them by position.
//   - A Fetcher delivers every committed record once and in order, checks each batch's CRC-32C, leaves out
//     aborted transactions and control records, and never skips: an offset that is gone is an error.
//   - A Claim's commit carries generation and member: a stale owner's commit is refused (ErrFenced). A claim
//     survives the group's changes as long as its partition stays.
//
// # Records in
//
//   - A Fetcher is one answer ahead: while its user reads one, the next is on its way into memory of its own
//     (ahead.go). The two change places, so records are valid until the next Fetch. An answer counts only if it
//     begins where the fetcher stands; after a damaged batch the fetcher is set back and asks anew.
//   - The fetchers that want data of a broker at a moment share one Fetch request; those that begin to while it is
//     on its way share the next, on another connection, once the first has brought something or a millisecond has
//     passed (pull.go). No fetcher is in two requests, and a wait for an idle partition holds up nobody.
//   - Errors are a partition's own, and retried by its Fetch; a broker that gives nothing although there is
//     something, because another partition came first, is asked for more bytes.
//   - What one Fetch returns, and with it a Fetcher's memory, is bounded (batch.go, parseBytes).
//
// # Records out
//
//   - A lane per partition holds one request at a time, with a producer id, an epoch and sequence numbers (lane.go).
//     The same batch is sent until it is acknowledged; the broker stores it once.
//   - A batch given up ends the epoch: the next one cannot be taken for it, and it cannot come behind the next one.
//   - OUT_OF_ORDER_SEQUENCE_NUMBER, UNKNOWN_PRODUCER_ID and INVALID_PRODUCER_EPOCH mean that the broker has forgotten
//     the producer: the batch goes as of a new one, and an error is logged, for records may be gone.
//     DUPLICATE_SEQUENCE_NUMBER is an acknowledgement.
//
// # Groups
//
// A group shares the partitions of its topics out among the processes that are its members, by Kafka's group
// protocol with cooperative hand-over (KIP-429) and static members (KIP-345):
//
//   - A member joins with what it owns. When all have joined, the coordinator counts the generation up, and the
//     leader assigns (assign.go): everybody keeps what it has, but for the least that must move so that the numbers
//     differ by one at most. What moves is owed: nobody's, until its owner has returned and its member has joined
//     again without it. So untouched partitions never stop, and one that moves in order never has two owners.
//   - The coordinator refuses commits of other generations and other members, but it does not know whose a partition
//     is. That a claim which ended is silent, its member sees to (Claim.fence). Every way to a new owner leads over
//     a new generation or a new member id, so whatever was sent before and arrives late is refused.
//   - A claim survives a generation only if its member took part in every one since: else somebody may have had the
//     partition in between (member.admitted). It ends too when the coordinator has been silent for a session.
//   - A member that dies is noticed after the session time-out; its partitions are owed by nobody, and assigned at
//     once. A static member that restarts is given its predecessor's assignment, without a rebalance; if some of
//     it was owed, the assignment says so, and the member joins once more to hand it on.
//   - Members from before this protocol offer only "range" and give up everything at each rebalance. Ours offer both;
//     while one of the old is in the group, it speaks theirs.
//
// kafka-go is used for what it does well: connections, TLS, SASL and discovery of brokers. Its groups
// stop every partition at each change and know no static members. Records are written and read as raw batches
// through its transport, because its own readers return aborted transactions as if committed
// (segmentio/kafka-go#1332).
//
// It must not know what a record means: it knows bytes, keys and headers, no event.
package stream

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/weft-cdp/weft/pkg/topic"
)

// Record is one record of a partition.
type Record struct {
	Topic     string
	Partition int
	Offset    int64
	// Key and Value are nil if the record has none; an empty one is not nil.
	Key, Value []byte
	Headers    []topic.Header
	// Time is what the producer, or on topics with LogAppendTime the broker, stamped on a fetched record.
	// Produce ignores it and stamps the time of sending, so that retention counts from there. Nothing in
	// Weft may rely on it; journey-writer keeps it as when a merge became known.
	Time time.Time
}

// Batch is what one Fetch returned.
type Batch struct {
	// Records in the order of the log; there may be none. They are the caller's, keys, values and headers
	// included, until the next Fetch or Close of the same Fetcher; see Clone. They share memory with each
	// other, so they must not be written to.
	Records []Record
	// Next is the offset to read from next: it moves over gaps, control records and aborted records too.
	Next int64
	// HighWatermark is the end of what all in-sync replicas have, as the leader said with this answer.
	HighWatermark int64
}

var (
	// ErrPermanent means that the same call will fail in the same way: too large, not allowed, no such topic.
	ErrPermanent = errors.New("kafka refuses this for good")
	// ErrOffsetOutOfRange means that the offset to read from is before the log's start or beyond its end.
	// The caller stops loudly: records are lost to it.
	ErrOffsetOutOfRange = errors.New("offset is outside of the log")
	// ErrFenced means that a commit was refused, and has no effect, because the claim is no longer this
	// member's: its generation ended.
	ErrFenced = errors.New("partition is claimed by a newer generation")
	// ErrRejoin is returned by an owner that wants its member to leave the group and to join as a new one.
	ErrRejoin = errors.New("leave the group and join as a new member")
	// ErrStop is wrapped by the error of an owner that must not go on: RunGroup returns it.
	ErrStop = errors.New("stop")
	// ErrClosed means that the client, fetcher or batcher was closed.
	ErrClosed = errors.New("closed")
	// ErrUnknownTopic means that Kafka has no such topic.
	ErrUnknownTopic = errors.New("topic does not exist")
)

// RecordError says which record of a Produce call was refused. It wraps ErrPermanent; the records before
// Index are written, those after it are not.
type RecordError struct {
	Index int   // in the slice given to Produce
	Bytes int   // size of the record on the wire
	Err   error // the broker's answer
}

func (e *RecordError) Error() string {
	return "record " + itoa(e.Index) + " of " + itoa(e.Bytes) + " bytes: " + e.Err.Error()
}

// Unwrap makes errors.Is find ErrPermanent and the broker's answer.
func (e *RecordError) Unwrap() []error { return []error{ErrPermanent, e.Err} }

// PartitionFor is the partition of key among n: murmur2, as Kafka's Java client has it; any one for nil.
func PartitionFor(key []byte, n int) int {
	if key == nil {
		return rand.IntN(n) //nolint:gosec // spreading, not a secret
	}
	return topic.Partition(key, n)
}
