package writer

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/topic"
)

// announcement is what one OffsetCommit says: the committed offset X (all before it is in ClickHouse), and
// in its metadata that [X, End) is inserted next, and the highest source positions before X. Whoever owns
// the partition next inserts exactly that range under exactly that token.
type announcement struct {
	Start, End int64
	At         time.Time // when it was announced last, by the announcer's clock, to the millisecond
	First      time.Time // when it was announced first: before At if it was revived
	Positions  positions
}

// positions is the highest sequence seen per stage and source partition, plus one; zero: none yet.
type positions map[string][]int64

// maxSourcePartition bounds what a header may make us remember.
const maxSourcePartition = 1 << 12

// above says whether p was not seen before, and notes it. A record that is not above was published twice.
func (ps positions) above(p topic.Position) bool {
	seqs := ps[p.Stage]
	if p.Partition < len(seqs) {
		if p.Seq < seqs[p.Partition] {
			return false
		}
		seqs[p.Partition] = p.Seq + 1
		return true
	}
	for len(seqs) <= p.Partition {
		seqs = append(seqs, 0)
	}
	seqs[p.Partition] = p.Seq + 1
	ps[strings.Clone(p.Stage)] = seqs // the stage may be the memory of a record
	return true
}

func (ps positions) clone() positions {
	out := make(positions, len(ps))
	for stage, seqs := range ps {
		out[stage] = slices.Clone(seqs)
	}
	return out
}

const (
	// announceVersion begins the metadata; a newer binary reads the older, an older one refuses.
	announceVersion = 1
	// MaxMetadata is Kafka's default offset.metadata.max.bytes.
	MaxMetadata = 4096
	// seqBytes is the longest sequence that the check at start reckons with: a varint of six bytes, four
	// trillion records from one source partition.
	seqBytes = 6
)

// errMetadata means that committed metadata cannot be read.
var errMetadata = errors.New("committed metadata is not an announcement")

// encode makes the metadata: version, End-Start, At, At-First, and per stage its name and the sequences, as varints
// in base64.
func (a *announcement) encode() (string, error) {
	b := []byte{announceVersion}
	b = binary.AppendUvarint(b, uint64(a.End-a.Start)) //nolint:gosec // End is never before Start
	b = binary.AppendUvarint(b, uint64(max(a.At.UnixMilli(), 0)))
	b = binary.AppendUvarint(b, uint64(max(a.At.UnixMilli()-a.First.UnixMilli(), 0)))
	b = binary.AppendUvarint(b, uint64(len(a.Positions)))
	for _, stage := range slices.Sorted(maps.Keys(a.Positions)) {
		b = binary.AppendUvarint(b, uint64(len(stage)))
		b = append(b, stage...)
		seqs := a.Positions[stage]
		b = binary.AppendUvarint(b, uint64(len(seqs)))
		for _, seq := range seqs {
			b = binary.AppendUvarint(b, uint64(seq)) //nolint:gosec // sequences are not negative
		}
	}
	s := base64.RawStdEncoding.EncodeToString(b)
	if len(s) > MaxMetadata {
		return "", fmt.Errorf("announcement of %d source positions needs %d bytes, offset.metadata.max.bytes is %d", a.Positions.count(), len(s), MaxMetadata)
	}
	return s, nil
}

func (ps positions) count() int {
	n := 0
	for _, seqs := range ps {
		n += len(seqs)
	}
	return n
}

// decodeAnnouncement reads what was committed with offset start. Empty metadata, as a tool that resets
// offsets leaves it, announces nothing.
func decodeAnnouncement(start int64, metadata string) (announcement, error) {
	a := announcement{Start: start, End: start, Positions: positions{}}
	if metadata == "" {
		return a, nil
	}
	b, err := base64.RawStdEncoding.DecodeString(metadata)
	if err != nil || len(b) == 0 {
		return a, fmt.Errorf("%w: %.80q", errMetadata, metadata)
	}
	if b[0] != announceVersion {
		return a, fmt.Errorf("%w: version %d, known %d", errMetadata, b[0], announceVersion)
	}
	r := varints{b: b[1:]}
	a.End += r.next()
	at := r.next()
	a.At, a.First = time.UnixMilli(at).UTC(), time.UnixMilli(at-r.next()).UTC()
	for range r.next() {
		stage := string(r.take(r.next()))
		n := r.next()
		if r.bad || n > maxSourcePartition {
			break
		}
		seqs := make([]int64, n)
		for i := range seqs {
			seqs[i] = r.next()
		}
		a.Positions[stage] = seqs
	}
	if r.bad || len(r.b) != 0 || a.End < a.Start {
		return a, fmt.Errorf("%w: %.80q", errMetadata, metadata)
	}
	return a, nil
}

// varints reads unsigned varints that fit an int64.
type varints struct {
	b   []byte
	bad bool
}

func (r *varints) next() int64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > 1<<62 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return int64(v)
}

func (r *varints) take(n int64) []byte {
	if n > int64(len(r.b)) {
		r.b, r.bad = nil, true
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

// worstMetadata is how long the metadata can get for records from these stages, by their partition counts.
func worstMetadata(partitions map[string]int) int {
	const fixed = 1 + 3*binary.MaxVarintLen64 + binary.MaxVarintLen16
	n := fixed
	for stage, count := range partitions {
		n += 1 + len(stage) + binary.MaxVarintLen16 + count*seqBytes
	}
	return base64.RawStdEncoding.EncodedLen(n)
}
