package stream

import (
	"context"
	"fmt"

	"github.com/segmentio/kafka-go"
)

// GroupMembers returns how many members a group has now; 0 for a group that does not exist.
func (c *Client) GroupMembers(ctx context.Context, group string) (int, error) {
	n := 0
	err := c.try(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		client := kafka.Client{Addr: c.addr, Transport: c.transport}
		res, err := client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})
		if err != nil {
			return err
		}
		n = 0
		for i := range res.Groups {
			if err := res.Groups[i].Error; err != nil {
				return err
			}
			n += len(res.Groups[i].Members)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("describe group %s: %w", group, err)
	}
	return n, nil
}
