package stream

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/createtopics"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/topic"
)

// maxMessageBytes is Kafka's own default of max.message.bytes, set on our topics so that a cluster with a
// lower default does not refuse an event that the collector took (config: max_event_bytes is below it).
const maxMessageBytes = 1_048_588

// createTimeoutMs is how long a broker may take to create topics before it answers.
const createTimeoutMs = 5_000

// RawExchange answers without the wire; see refreshMessage.
func (refreshMessage) RawExchange(io.ReadWriter) (protocol.Message, error) {
	return new(createtopics.Response), nil
}

// topicMeta is a topic as a broker describes it right now.
type topicMeta struct {
	leaders []int32 // index = partition; negative: none at the moment
}

// metadata asks any broker for the given topics (none: only whether it answers). Unlike kafka-go's it is
// never served from a cache and never makes a broker create a topic.
func (c *Client) metadata(ctx context.Context, topics []string) (map[string]topicMeta, error) {
	var w writer
	w.array(len(topics))
	for _, t := range topics {
		w.str(t)
	}
	w.int8(0) // allow_auto_topic_creation
	w.int8(0) // include_cluster_authorized_operations
	w.int8(0) // include_topic_authorized_operations
	r, err := c.do(ctx, requestTimeout, protocol.Metadata, 8, w.b, nil)
	if err != nil {
		return nil, err
	}
	r.int32() // throttle
	for range r.array(10) {
		r.int32()
		r.str()
		r.int32()
		r.str()
	}
	r.str()   // cluster id
	r.int32() // controller
	out := make(map[string]topicMeta, len(topics))
	for range r.array(9) {
		code := r.int16()
		name := r.str()
		r.int8() // internal
		n := r.array(22)
		meta := topicMeta{leaders: make([]int32, n)}
		for i := range meta.leaders {
			meta.leaders[i] = -1
		}
		for range n {
			r.int16() // error: the leader says enough
			id, leader := int(r.int32()), r.int32()
			r.int32() // leader epoch
			for range 3 {
				r.take(4 * r.array(4)) // replicas, in-sync replicas, offline replicas
			}
			if id < 0 || id >= n {
				return nil, fmt.Errorf("partition %d of %d: %w", id, n, errMalformed)
			}
			meta.leaders[id] = leader
		}
		r.int32() // authorized operations
		if code == int16(kafka.UnknownTopicOrPartition) {
			return nil, fmt.Errorf("topic %s: %w", name, ErrUnknownTopic)
		}
		if err := codeError(code); err != nil {
			return nil, fmt.Errorf("topic %s: %w", name, err)
		}
		out[name] = meta
	}
	if r.err != nil {
		return nil, r.err
	}
	for _, t := range topics {
		if _, ok := out[t]; !ok {
			return nil, fmt.Errorf("topic %s: %w", t, ErrUnknownTopic)
		}
	}
	return out, nil
}

// PartitionCount asks Kafka how many partitions a topic has. ErrUnknownTopic: it does not exist. ErrPermanent: Kafka
// answers, and asking again is of no use.
func (c *Client) PartitionCount(ctx context.Context, topicName string) (int, error) {
	var m map[string]topicMeta
	err := c.try(ctx, func(ctx context.Context) (err error) {
		m, err = c.metadata(ctx, []string{topicName})
		return err
	})
	if permanent(err) {
		err = fmt.Errorf("%w: %w", ErrPermanent, err)
	}
	if err != nil {
		return 0, fmt.Errorf("count partitions of %s: %w", topicName, err)
	}
	return len(m[topicName].leaders), nil
}

// EnsureTopics creates the topics that are missing and checks that all have the partition count of their
// spec. Settings of existing topics are left alone: they are the operator's; but max.message.bytes is raised where
// it is below what the spec asks for.
func (c *Client) EnsureTopics(ctx context.Context, specs []topic.Spec, t config.Topics) error {
	if t.MinInsyncReplicas > t.ReplicationFactor {
		return fmt.Errorf("topics.min_insync_replicas %d is more than topics.replication_factor %d: nothing could be written",
			t.MinInsyncReplicas, t.ReplicationFactor)
	}
	err := c.retry(ctx, "create topics", func(ctx context.Context) error { return c.createMissing(ctx, specs, t) })
	if err != nil {
		return err
	}
	names := make([]string, len(specs))
	for i, s := range specs {
		names[i] = s.Name
	}
	var found map[string]topicMeta
	err = c.retry(ctx, "read topics", func(ctx context.Context) (err error) {
		found, err = c.metadata(ctx, names)
		return err
	})
	if err != nil {
		return err
	}
	for _, s := range specs {
		if n := len(found[s.Name].leaders); n != s.Partitions {
			return fmt.Errorf("topic %s has %d partitions, configured are %d: the count is fixed for a deployment's life, use another prefix",
				s.Name, n, s.Partitions)
		}
	}
	return c.retry(ctx, "raise the limits of topics", func(ctx context.Context) error { return c.raiseLimits(ctx, specs) })
}

func (c *Client) createMissing(ctx context.Context, specs []topic.Spec, t config.Topics) error {
	req := &createtopics.Request{TimeoutMs: createTimeoutMs}
	for _, s := range specs {
		if _, err := c.metadata(ctx, []string{s.Name}); err == nil {
			continue
		} else if !unknownTopic(err) {
			return err
		}
		configs := map[string]string{
			messageLimit:          strconv.Itoa(max(maxMessageBytes, s.RecordBytes)),
			"min.insync.replicas": strconv.Itoa(t.MinInsyncReplicas),
			"cleanup.policy":      "delete",
		}
		if s.Compact {
			configs["cleanup.policy"] = "compact"
		} else if s.Forever {
			configs["retention.ms"] = "-1"
		} else if t.Retention > 0 {
			configs["retention.ms"] = strconv.FormatInt(t.Retention.Milliseconds(), 10)
		}
		rt := createtopics.RequestTopic{
			Name: s.Name, NumPartitions: i32(s.Partitions), ReplicationFactor: int16(t.ReplicationFactor), //nolint:gosec // a handful
		}
		for k, v := range configs {
			rt.Configs = append(rt.Configs, createtopics.RequestConfig{Name: k, Value: v})
		}
		req.Topics = append(req.Topics, rt)
	}
	if len(req.Topics) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout+dialTimeout)
	defer cancel()
	m, err := c.transport.RoundTrip(ctx, c.addr, req)
	if err != nil {
		return err
	}
	res, ok := m.(*createtopics.Response)
	if !ok {
		return fmt.Errorf("create topics: %w", errMalformed)
	}
	for _, rt := range res.Topics {
		switch kafka.Error(rt.ErrorCode) {
		case 0:
			c.log.Info("topic created", zap.String("topic", rt.Name))
		case kafka.TopicAlreadyExists: // another process was faster
		default:
			return fmt.Errorf("topic %s: %w: %s", rt.Name, kafka.Error(rt.ErrorCode), rt.ErrorMessage)
		}
	}
	return nil
}
