//go:build integration

package e2e

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// ends are the partitions of a topic that hold something, with their ends.
func (f *foreign) ends(name string) map[int32]int64 {
	f.t.Helper()
	ends, err := f.admin.ListEndOffsets(f.t.Context(), name)
	require.NoError(f.t, err)
	require.NoError(f.t, ends.Error())
	out := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			out[o.Partition] = o.Offset
		}
	})
	return out
}

// numbers counts, by its number, how often each event of a load stands in a topic. What a stage has published twice, with
// one source position, counts once, as for everybody who reads it: rule 1 of the pipeline.
func (f *foreign) numbers(name string) map[int]int {
	f.t.Helper()
	left, out, positions := f.ends(name), map[int]int{}, map[string]bool{}
	c, err := kgo.NewClient(kgo.SeedBrokers(f.address), kgo.ConsumeTopics(name), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	require.NoError(f.t, err)
	defer c.Close()
	for len(left) > 0 {
		fetches := c.PollFetches(f.t.Context())
		require.NoError(f.t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			id, position := header(r, "weft-message-id"), header(r, "weft-position")
			if text, ours := strings.CutPrefix(id, loadName); ours && (position == "" || !positions[position]) {
				n, err := strconv.Atoi(text)
				require.NoError(f.t, err)
				out[n]++
				positions[position] = true
			}
			if r.Offset >= left[r.Partition]-1 {
				delete(left, r.Partition)
			}
		})
	}
	return out
}

// header is a record's; empty without it.
func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

const (
	// Where fields of a record batch stand, and where its checksum begins.
	batchLength, batchChecksum, batchChecked, batchProducer, batchRecords = 8, 17, 21, 43, 57
	// noProducer fills the producer's id, epoch and sequence: a batch that anybody may send again.
	noProducerBytes = 8 + 2 + 4
	// floorBytes is how much of each partition is sent again: enough for a second or so.
	floorBytes = 24 << 20
	// floorShare: batches below this part of the largest one are left out.
	floorShare = 4
	// fetchBytes is one answer.
	fetchBytes = 8 << 20
	// floorWait is how long the broker may take over one request.
	floorWait = time.Minute
)

// readyBatches are the large batches of a topic as the broker keeps them, by partition, with how many records they have:
// those of draining, not those of single calls, whose round trips would be all that is measured. They may be sent again
// as they are.
func (f *foreign) readyBatches(c *kgo.Client, name string) (batches map[int32][][]byte, records int) {
	f.t.Helper()
	batches = map[int32][][]byte{}
	largest := 0
	for p, end := range f.ends(name) {
		for at, size := int64(0), 0; at < end && size < floorBytes; {
			req := kmsg.NewPtrFetchRequest()
			req.ReplicaID, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = -1, 1000, 1, fetchBytes
			part := kmsg.NewFetchRequestTopicPartition()
			part.Partition, part.FetchOffset, part.PartitionMaxBytes = p, at, fetchBytes
			topic := kmsg.NewFetchRequestTopic()
			topic.Topic, topic.Partitions = name, []kmsg.FetchRequestTopicPartition{part}
			req.Topics = []kmsg.FetchRequestTopic{topic}
			answer, err := req.RequestWith(f.t.Context(), c)
			require.NoError(f.t, err)
			got := answer.Topics[0].Partitions[0]
			require.NoError(f.t, kerr.ErrorForCode(got.ErrorCode))
			for rest := got.RecordBatches; len(rest) > batchRecords+4; {
				n := batchLength + 4 + int(binary.BigEndian.Uint32(rest[batchLength:]))
				if n > len(rest) {
					break // the rest of it comes with the next answer
				}
				b := append([]byte(nil), rest[:n]...)
				rest = rest[n:]
				at = int64(binary.BigEndian.Uint64(b)) + int64(binary.BigEndian.Uint32(b[batchChecked+2:])) + 1
				binary.BigEndian.PutUint64(b, 0)
				for i := range noProducerBytes {
					b[batchProducer+i] = 0xff
				}
				binary.BigEndian.PutUint32(b[batchChecksum:], crc32.Checksum(b[batchChecked:], crc32.MakeTable(crc32.Castagnoli)))
				batches[p] = append(batches[p], b)
				size += n
				largest = max(largest, n)
			}
		}
	}
	for p := range batches {
		batches[p] = slices.DeleteFunc(batches[p], func(b []byte) bool { return len(b) < largest/floorShare })
		for _, b := range batches[p] {
			records += int(binary.BigEndian.Uint32(b[batchRecords:]))
		}
	}
	return batches, records
}

func (d *deployment) floorTopic() string { return "e2e." + d.id + ".floor" }

// floor sends the batches of a topic again as they are, one request after the other to each partition, partitions side
// by side, and returns how many records a second that is: the least that handing them over can take. floorTopic must be
// there, and for a while, for a broker that has just made one may not know yet that it is the leader.
func (d *deployment) floor(name string) float64 {
	d.t.Helper()
	connect := func() *kgo.Client {
		c, err := kgo.NewClient(kgo.SeedBrokers(d.kafka.address), kgo.MaxVersions(kversion.V3_0_0())) // before topics had ids in requests
		require.NoError(d.t, err)
		d.t.Cleanup(c.Close)
		return c
	}
	batches, records := d.kafka.readyBatches(connect(), name)
	to := d.floorTopic()
	clients := map[int32]*kgo.Client{} // a broker answers one request of a connection after the other
	for p := range batches {
		clients[p] = connect()
		require.NoError(d.t, clients[p].Ping(d.t.Context()))
	}
	send := func(p int32, b []byte) error {
		req := kmsg.NewPtrProduceRequest()
		req.Acks, req.TimeoutMillis = -1, int32(floorWait.Milliseconds())
		part := kmsg.NewProduceRequestTopicPartition()
		part.Partition, part.Records = p, b
		topic := kmsg.NewProduceRequestTopic()
		topic.Topic, topic.Partitions = to, []kmsg.ProduceRequestTopicPartition{part}
		req.Topics = []kmsg.ProduceRequestTopic{topic}
		answer, err := req.RequestWith(d.t.Context(), clients[p])
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(answer.Topics[0].Partitions[0].ErrorCode)
	}
	begun := time.Now()
	var partitions sync.WaitGroup
	for p, all := range batches {
		partitions.Go(func() {
			for _, b := range all {
				if err := send(p, b); err != nil {
					d.t.Errorf("send a ready batch: %v", err)
					return
				}
			}
		})
	}
	partitions.Wait()
	return float64(records) / time.Since(begun).Seconds()
}
