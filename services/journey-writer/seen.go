package writer

import (
	"context"
	"fmt"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Seen reads from the announcements which source positions the writer has stored: the highest of each stage and
// partition, per topic. What is not above would be dropped here as a repeat.
func Seen(ctx context.Context, client *stream.Client, set topic.Set) ([]topic.Position, error) {
	var seen []topic.Position
	for _, spec := range set.Specs() {
		commits, err := client.Committed(ctx, set.Group(topic.StageWriter, spec.Name), spec.Name)
		if err != nil {
			return nil, err
		}
		for p, c := range commits {
			if c.Offset < 0 {
				continue
			}
			a, err := decodeAnnouncement(c.Offset, c.Metadata)
			if err != nil {
				return nil, fmt.Errorf("%s partition %d: %w", spec.Name, p, err)
			}
			for stage, seqs := range a.Positions {
				for source, next := range seqs {
					if next > 0 {
						seen = append(seen, topic.Position{Stage: stage, Partition: source, Seq: next - 1})
					}
				}
			}
		}
	}
	return seen, nil
}
