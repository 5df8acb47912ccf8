//go:build integration

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// foreign is a Kafka client that knows nothing of Weft: another library, another partitioner, no headers.
type foreign struct {
	t       *testing.T
	address string
	client  *kgo.Client
	admin   *kadm.Client
}

func newForeign(t *testing.T, address string) *foreign {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	require.NoError(t, err)
	return &foreign{t, address, c, kadm.NewClient(c)}
}

func (f *foreign) close() { f.client.Close() }

// produce writes records and returns when Kafka has them.
func (f *foreign) produce(recs ...*kgo.Record) {
	f.t.Helper()
	require.NoError(f.t, f.client.ProduceSync(f.t.Context(), recs...).FirstErr())
}

// record is a record with a key (nil for ""), a value (nil for "") and headers given as name, value, ...
func record(topic, key, value string, headers ...string) *kgo.Record {
	r := &kgo.Record{Topic: topic}
	if key != "" {
		r.Key = []byte(key)
	}
	if value != "" {
		r.Value = []byte(value)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

func (f *foreign) createTopic(name string, partitions int32) {
	f.t.Helper()
	_, err := f.admin.CreateTopic(f.t.Context(), partitions, 1, nil, name)
	require.NoError(f.t, err)
}

// lag is how many records of a topic a stage's group has not committed yet.
func (f *foreign) lag(group string) int64 {
	f.t.Helper()
	lags, err := f.admin.Lag(f.t.Context(), group)
	require.NoError(f.t, err)
	require.NoError(f.t, lags.Error())
	return lags[group].Lag.Total()
}

// deleteTopics removes every topic and group whose name begins with prefix.
func (f *foreign) deleteTopics(ctx context.Context, prefix string) error {
	topics, err := f.admin.ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	ours := slices.DeleteFunc(topics.Names(), func(name string) bool { return !strings.HasPrefix(name, prefix) })
	if len(ours) > 0 {
		gone, err := f.admin.DeleteTopics(ctx, ours...)
		if err := errors.Join(err, gone.Error()); err != nil {
			return fmt.Errorf("delete topics of %s: %w", prefix, err)
		}
	}
	groups, err := f.admin.ListGroups(ctx)
	if err != nil {
		return fmt.Errorf("list groups: %w", err)
	}
	ours = slices.DeleteFunc(groups.Groups(), func(name string) bool { return !strings.HasPrefix(name, prefix) })
	if len(ours) == 0 {
		return nil
	}
	gone, err := f.admin.DeleteGroups(ctx, ours...)
	if err := errors.Join(err, gone.Error()); err != nil {
		return fmt.Errorf("delete groups of %s: %w", prefix, err)
	}
	return nil
}
