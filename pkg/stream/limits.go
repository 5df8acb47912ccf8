package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/describeconfigs"
	"github.com/segmentio/kafka-go/protocol/incrementalalterconfigs"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/topic"
)

// Numbers of Kafka's protocol.
const (
	resourceTopic = 2 // of configuration resources
	operationSet  = 0 // of a change to one
)

const messageLimit = "max.message.bytes"

// MessageLimits is the largest batch that each of the topics takes, max.message.bytes. A topic that does not say is left out.
func (c *Client) MessageLimits(ctx context.Context, topics []string) (map[string]int, error) {
	req := &describeconfigs.Request{}
	for _, name := range topics {
		req.Resources = append(req.Resources, describeconfigs.RequestResource{ResourceType: resourceTopic, ResourceName: name, ConfigNames: []string{messageLimit}})
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout+dialTimeout)
	defer cancel()
	m, err := c.transport.RoundTrip(ctx, c.addr, req)
	if err != nil {
		return nil, fmt.Errorf("read the limits of topics: %w", err)
	}
	res, ok := m.(*describeconfigs.Response)
	if !ok {
		return nil, fmt.Errorf("read the limits of topics: %w", errMalformed)
	}
	limits := map[string]int{}
	for _, r := range res.Resources {
		if r.ErrorCode != 0 {
			return nil, fmt.Errorf("read the limits of topic %s: %w: %s", r.ResourceName, kafka.Error(r.ErrorCode), r.ErrorMessage)
		}
		for _, e := range r.ConfigEntries {
			if n, err := strconv.Atoi(e.ConfigValue); err == nil && e.ConfigName == messageLimit {
				limits[r.ResourceName] = n
			}
		}
	}
	return limits, nil
}

// raiseLimits lets topics that exist take what is configured: a topic with a lower limit would refuse events that the
// collector took. A higher one is left as it is.
func (c *Client) raiseLimits(ctx context.Context, specs []topic.Spec) error {
	names := make([]string, len(specs))
	for i, s := range specs {
		names[i] = s.Name
	}
	limits, err := c.MessageLimits(ctx, names)
	if errors.Is(err, kafka.TopicAuthorizationFailed) || errors.Is(err, kafka.ClusterAuthorizationFailed) {
		c.log.Warn("may not read the limits of topics; they are not checked", zap.Error(err))
		return nil
	}
	if err != nil {
		return err
	}
	req := &incrementalalterconfigs.Request{}
	for _, s := range specs {
		if limit, known := limits[s.Name]; known && limit < s.RecordBytes {
			c.log.Info("raising a topic's limit", zap.String("topic", s.Name), zap.Int("from", limit), zap.Int("to", max(s.RecordBytes, maxMessageBytes)))
			req.Resources = append(req.Resources, incrementalalterconfigs.RequestResource{ResourceType: resourceTopic, ResourceName: s.Name,
				Configs: []incrementalalterconfigs.RequestConfig{{Name: messageLimit, ConfigOperation: operationSet, Value: strconv.Itoa(max(s.RecordBytes, maxMessageBytes))}}})
		}
	}
	if len(req.Resources) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout+dialTimeout)
	defer cancel()
	m, err := c.transport.RoundTrip(ctx, c.addr, req)
	if err != nil {
		return fmt.Errorf("raise the limits of topics: %w", err)
	}
	res, ok := m.(*incrementalalterconfigs.Response)
	if !ok {
		return fmt.Errorf("raise the limits of topics: %w", errMalformed)
	}
	for _, r := range res.Responses {
		if r.ErrorCode != 0 {
			return fmt.Errorf("raise %s of topic %s: %w: %s", messageLimit, r.ResourceName, kafka.Error(r.ErrorCode), r.ErrorMessage)
		}
	}
	return nil
}
