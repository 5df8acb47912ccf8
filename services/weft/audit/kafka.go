package audit

import (
	"context"
	"time"

	"github.com/weft-cdp/weft/pkg/stream"
)

// fetchWait is how long one fetch waits: the records are known to be there.
const fetchWait = time.Second

// FromStream makes the Log of a Kafka cluster.
func FromStream(c *stream.Client) Log { return kafka{c} }

type kafka struct{ *stream.Client }

var _ Log = kafka{}

func (k kafka) Read(ctx context.Context, topicName string, partition int, from, to int64, each func(*stream.Record) error) error {
	f := k.NewFetcher(topicName, partition, from, stream.FetchOptions{})
	defer f.Close()
	for next := from; next < to; {
		batch, err := f.Fetch(ctx, fetchWait)
		if err != nil {
			return err
		}
		for i := range batch.Records {
			if batch.Records[i].Offset >= to {
				break
			}
			if err := each(&batch.Records[i]); err != nil {
				return err
			}
		}
		next = batch.Next
	}
	return nil
}

func (k kafka) Behind(ctx context.Context, group, topicName string) (int64, error) {
	ends, err := k.EndOffsets(ctx, topicName)
	if err != nil {
		return 0, err
	}
	starts, err := k.StartOffsets(ctx, topicName)
	if err != nil {
		return 0, err
	}
	got, err := k.Committed(ctx, group, topicName)
	if err != nil {
		return 0, err
	}
	var n int64
	for p, end := range ends {
		at := starts[p]
		if p < len(got) {
			at = max(at, got[p].Offset)
		}
		n += max(0, end-at)
	}
	return n, nil
}
