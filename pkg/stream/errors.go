package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"go.uber.org/zap"
)

const (
	// backoffFirst and backoffMax bound the pause between attempts, jittered by half. The first is below
	// the time a leader election takes; the last keeps a broken cluster from being stormed.
	backoffFirst = 50 * time.Millisecond
	backoffMax   = 5 * time.Second
	// topicPatience is how long a topic may be unknown before that is final: topics appear on all brokers
	// within seconds of their creation.
	topicPatience = 30 * time.Second
	// quietRetries is how many attempts fail before it is worth a warning: leader changes take a few.
	quietRetries = 3
)

var (
	errUnsupported = errors.New("broker is too old")
	errCorrupt     = errors.New("record batch is corrupt")
	errOldFormat   = errors.New("record batch has a message format from before Kafka 0.11; rewrite the topic with a current producer")
)

// backoff is capped, jittered, doubling pauses.
type backoff struct{ cur time.Duration }

// wait pauses; false means that ctx ended.
func (b *backoff) wait(ctx context.Context) bool {
	if b.cur = min(max(2*b.cur, backoffFirst), backoffMax); ctx.Err() != nil {
		return false
	}
	half := b.cur / 2
	t := time.NewTimer(half + rand.N(half)) //nolint:gosec // jitter, not a secret
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// kafkaCode finds the broker's error code in err; 0 if there is none.
func kafkaCode(err error) kafka.Error {
	var code kafka.Error
	if errors.As(err, &code) {
		return code
	}
	return 0
}

// codeError is nil for 0.
func codeError(code int16) error {
	if code == 0 {
		return nil
	}
	return kafka.Error(code)
}

// permanent says that repeating cannot help, whatever happens to the brokers.
func permanent(err error) bool {
	switch kafkaCode(err) {
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.InvalidMessageSize, kafka.InvalidRecord,
		kafka.InvalidTopic, kafka.InvalidRequiredAcks, kafka.UnsupportedForMessageFormat,
		kafka.UnsupportedCompressionType, kafka.UnsupportedVersion, kafka.PolicyViolation,
		kafka.TopicAuthorizationFailed, kafka.GroupAuthorizationFailed, kafka.ClusterAuthorizationFailed,
		kafka.SASLAuthenticationFailed, kafka.UnsupportedSASLMechanism, kafka.InvalidRequest,
		kafka.InvalidGroupId, kafka.InvalidCommitOffsetSize, kafka.OffsetMetadataTooLarge,
		kafka.InvalidPartitionNumber, kafka.InvalidReplicationFactor, kafka.InvalidConfiguration:
		return true
	}
	return errors.Is(err, errUnsupported) || errors.Is(err, errOldFormat) || errors.Is(err, ErrPermanent) ||
		errors.Is(err, ErrClosed)
}

// unknownTopic says that the brokers, or our view of them, do not know the topic or partition.
func unknownTopic(err error) bool {
	return kafkaCode(err) == kafka.UnknownTopicOrPartition || errors.Is(err, protocol.ErrNoTopic) ||
		errors.Is(err, protocol.ErrNoPartition) || errors.Is(err, ErrUnknownTopic)
}

// retry calls f until it returns nil, fails for good or ctx ends. Before each further attempt it has the
// cluster's metadata read anew. An error that is final wraps ErrPermanent; one because ctx ended wraps
// ctx's error and the last failure.
func (c *Client) retry(ctx context.Context, what string, f func(context.Context) error) error {
	var pause backoff
	var unknownSince time.Time
	var failure error // of the attempt before
	for attempt := 1; ; attempt++ {
		err := f(ctx)
		switch {
		case err == nil:
			if attempt > quietRetries {
				c.log.Info("kafka answers again", zap.String("request", what), zap.Int("attempts", attempt))
			}
			return nil
		case ctx.Err() != nil:
			if failure != nil && kafkaCode(err) == 0 { // ctx cut this attempt off, which tells nothing of the broker
				err = failure
			}
			return fmt.Errorf("%s: %w (last failure: %w)", what, context.Cause(ctx), err)
		case errors.Is(err, ErrPermanent):
			return fmt.Errorf("%s: %w", what, err)
		case permanent(err):
			return fmt.Errorf("%s: %w: %w", what, ErrPermanent, err)
		case !unknownTopic(err):
			unknownSince = time.Time{}
		case unknownSince.IsZero():
			unknownSince = time.Now()
		case time.Since(unknownSince) > c.topicPatience:
			return fmt.Errorf("%s: %w: %w", what, ErrPermanent, err)
		}
		if attempt >= quietRetries {
			c.log.Warn("kafka request not answered yet, trying again", zap.String("request", what),
				zap.Int("attempt", attempt), zap.Error(err))
		}
		if !pause.wait(ctx) {
			return fmt.Errorf("%s: %w (last failure: %w)", what, context.Cause(ctx), err)
		}
		failure = err
		c.wire.retries.Inc()
		c.refresh(ctx)
	}
}
