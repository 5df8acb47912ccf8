// Package topic names the Kafka topics of a Weft deployment, the headers that every record carries, and
// the partition a key belongs to.
//
// It owns: names, header keys and their text form, source positions, murmur2 partitioning (the same as
// Kafka's own Java client, so that foreign tools agree). It guarantees that what Headers writes,
// ParseHeaders reads back. It must not know how records are moved (package stream) nor what a body
// means (package event, of which it uses Meta only).
package topic

// Set is the topics of one deployment.
type Set struct {
	// Prefix stands before every topic name and every consumer group, "weft." by default.
	Prefix string
	// Partitions is the partition count of every topic that Weft writes; fixed for a deployment's life.
	Partitions int
}

// DefaultPrefix and DefaultPartitions are those of architecture section 3.
const (
	DefaultPrefix     = "weft."
	DefaultPartitions = 12
)

// EventsInbox takes events in Segment's shape from foreign producers.
func (s Set) EventsInbox() string { return s.Prefix + "events.inbox" }

// EventsCollected holds one valid event per record; key: the sender's own id.
func (s Set) EventsCollected() string { return s.Prefix + "events.collected" }

// EventsRejected holds bytes as they came, and why in the headers.
func (s Set) EventsRejected() string { return s.Prefix + "events.rejected" }

// EventsIdentified holds events and merges; key: profile id.
func (s Set) EventsIdentified() string { return s.Prefix + "events.identified" }

// IdentitiesLinked holds the accepted links with their evidence; key: identifier node; compacted.
func (s Set) IdentitiesLinked() string { return s.Prefix + "identities.linked" }

// IdentitiesCommands holds what operators have said of identities; all under one key, so that they have one order.
func (s Set) IdentitiesCommands() string { return s.Prefix + "identities.commands" }

// ProfilesChanged holds the profile after a change; key: profile id; compacted.
func (s Set) ProfilesChanged() string { return s.Prefix + "profiles.changed" }

// AudiencesChanged holds audiences entered or left; key: profile id.
func (s Set) AudiencesChanged() string { return s.Prefix + "audiences.changed" }

// ActivationsRequested holds one message to deliver per record; key: profile id.
func (s Set) ActivationsRequested() string { return s.Prefix + "activations.requested" }

// ActivationsSettled holds the end of each eligible cart or message: its receipt; key: profile id.
func (s Set) ActivationsSettled() string { return s.Prefix + "activations.settled" }

// Spec says how a topic is made.
type Spec struct {
	Name       string
	Partitions int
	Compact    bool // cleanup.policy=compact, else delete
	Forever    bool // nothing is ever deleted, whatever the retention of the others
	// RecordBytes is what a batch of one record may have: max.message.bytes must be no lower. 0: whatever it is.
	RecordBytes int
}

// Specs lists every topic that Weft itself needs, the shipped inbox included.
func (s Set) Specs() []Spec {
	names := []string{
		s.EventsInbox(), s.EventsCollected(), s.EventsRejected(), s.EventsIdentified(),
		s.AudiencesChanged(), s.ActivationsRequested(), s.ActivationsSettled(),
	}
	specs := make([]Spec, 0, len(names)+3)
	for _, n := range names {
		specs = append(specs, Spec{Name: n, Partitions: s.Partitions})
	}
	for _, n := range []string{s.IdentitiesLinked(), s.ProfilesChanged()} {
		specs = append(specs, Spec{Name: n, Partitions: s.Partitions, Compact: true})
	}
	return append(specs, Spec{Name: s.IdentitiesCommands(), Partitions: s.Partitions, Forever: true})
}

// Stage names: they stand in source positions, Redis hash tags and consumer groups.
const (
	StageCollector = "collector"         // Kafka inlets
	StageStitcher  = "identity-stitcher" // events.collected -> events.identified
	StageCommands  = "identity-commands" // identities.commands -> events.identified, identities.linked
	StageBuilder   = "profile-builder"   // events.identified -> profiles.changed
	StageDecide    = "activator"         // events.identified -> activations.requested, .settled
	StageDeliver   = "activator-deliver" // activations.requested -> .settled
	StageWriter    = "journey-writer"    // everything -> ClickHouse
)

// Group is the consumer group in which a stage reads an input topic. A stage has one group per topic, so
// that adding an inlet moves nothing of the others.
func (s Set) Group(stage, input string) string { return s.Prefix + stage + "." + input }

// Partition is the partition of a key among n, by murmur2 as Kafka's Java client has it. An empty key is
// an ordinary key here; callers that want spreading for keyless records choose themselves.
func Partition(key []byte, n int) int { return int(murmur2(key)&0x7fffffff) % n }

// murmur2 is the 32-bit variant with the seed of org.apache.kafka.common.utils.Utils.murmur2.
func murmur2(data []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := uint32(seed) ^ uint32(len(data)) //nolint:gosec // a key is far below 4 GiB
	for ; len(data) >= 4; data = data[4:] {
		k := uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 | uint32(data[3])<<24
		k *= m
		k ^= k >> r
		k *= m
		h = h*m ^ k
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(data[0])) * m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
