package stream

import (
	"context"
	"fmt"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// GroupMembers returns how many members a group has now; 0 for a group that does not exist.
func (c *Client) GroupMembers(ctx context.Context, group string) (int, error) {
	n := 0
	err := c.try(ctx, func(ctx context.Context) (err error) {
		n, err = c.groupMembersOnce(ctx, group)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("describe group %s: %w", group, err)
	}
	return n, nil
}

// groupMembersOnce asks with DescribeGroups v1. What members say of themselves is not read: it is between them.
func (c *Client) groupMembersOnce(ctx context.Context, group string) (int, error) {
	var w writer
	w.array(1)
	w.str(group)
	r, err := c.doGroup(ctx, requestTimeout, group, protocol.DescribeGroups, 1, w.b)
	if err != nil {
		return 0, err
	}
	members := 0
	r.int32() // throttle
	for range r.array(14) {
		code := r.int16()
		r.str() // group
		r.str() // state
		r.str() // protocol type
		r.str() // protocol
		for range r.array(14) {
			r.str()  // member
			r.str()  // client
			r.str()  // host
			r.blob() // metadata
			r.blob() // assignment
			members++
		}
		if err := codeError(code); err != nil && kafka.Error(code) != kafka.GroupIdNotFound {
			return 0, c.forget(group, err)
		}
	}
	return members, r.err
}
