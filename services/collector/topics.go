package collector

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weft-cdp/weft/pkg/stream"
)

// topicsPause is the time between looks at whether the topics exist.
const topicsPause = time.Second

// errNeverSeen: nobody has ever seen the topics of this deployment.
var errNeverSeen = errors.New("no collector has seen the topics yet, so their partition count is not known")

// awaitTopics waits until the topics exist and checks their partition count: with another one a key would
// change its partition. While Kafka does not answer the door is ready if the spool is.
func (s *Service) awaitTopics(ctx context.Context) error {
	told, known := false, false
	for _, name := range []string{s.set.EventsCollected(), s.set.EventsRejected()} {
		for {
			n, err := s.deps.Stream.PartitionCount(ctx, name)
			if err == nil {
				if err := s.checkPartitions("topic "+name+" has", n); err != nil {
					return err
				}
				break
			}
			err = fmt.Errorf("look for topic %s: %w", name, err)
			if s.spool != nil && !errors.Is(err, stream.ErrUnknownTopic) && !errors.Is(err, stream.ErrPermanent) {
				if !known {
					n, notSeen := s.partitionsSeen(ctx)
					if notSeen == nil {
						if fatal := s.checkPartitions("another collector has seen topics of", n); fatal != nil {
							return fatal
						}
						known = true
					}
					err = errors.Join(err, notSeen)
				}
				if known {
					err = s.standIn(ctx, err)
				}
			}
			if s.become(err); err == nil && !told {
				s.deps.Log.Warn("kafka does not answer; the door is ready because the spool is")
				told = true
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(topicsPause):
			}
		}
	}
	s.become(nil)
	s.notePartitions(ctx)
	return nil
}

func (s *Service) checkPartitions(who string, n int) error {
	if n == s.set.Partitions {
		return nil
	}
	return fmt.Errorf("%s %d partitions, topics.partitions says %d", who, n, s.set.Partitions)
}

// partitionsSeen is how many partitions the topics had when a collector saw them.
func (s *Service) partitionsSeen(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Collector.ProduceTimeout)
	defer cancel()
	n, err := s.registry.Partitions(ctx)
	if err == nil && n == 0 {
		err = errNeverSeen
	}
	return n, err
}

// standIn is nil if the spool can do without Kafka, else why Kafka is not there and why the spool is not.
func (s *Service) standIn(ctx context.Context, away error) error {
	if err := s.spool.Usable(ctx); err != nil {
		return errors.Join(away, err)
	}
	return nil
}

// notePartitions tells the collectors that start while Kafka is away. It tries until it has come through.
func (s *Service) notePartitions(ctx context.Context) {
	for s.spool != nil {
		if s.registry.NotePartitions(ctx, s.set.Partitions) == nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(topicsPause):
		}
	}
}
