package commands

import (
	"context"

	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Said are the headers of a record that only says what a command has done: for handlers outside of this package.
func Said(kind topic.Kind) []topic.Header { return said(kind) }

// PublishMerges publishes merges that stand before a person is taken apart, each under the number of its loser among the
// members.
func (r *Run) PublishMerges(ctx context.Context, merges []identity.Merge, members []string) error {
	return r.merges(ctx, merges, members)
}
