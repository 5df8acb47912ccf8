// Package rebuild is what 'weft rebuild' reads: the history of a deployment, from Kafka and, where its
// retention has cut a topic, from ClickHouse.
//
// It owns: how rows become records again. It guarantees that a record made of a row has the same effect on a
// fold as the one that was stored; its bytes may differ. It must not know what the records are folded into.
package rebuild

import (
	"context"
	"sync"

	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/stream"
)

// Ends remembers where topics ended when they were first asked for, so that all of a rebuild sees the same.
type Ends struct {
	client *stream.Client

	mu    sync.Mutex
	known map[string][]int64
}

// NewEnds asks a cluster.
func NewEnds(client *stream.Client) *Ends { return &Ends{client: client, known: map[string][]int64{}} }

// Of returns the end of each partition of a topic.
func (e *Ends) Of(ctx context.Context, topicName string) ([]int64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ends, ok := e.known[topicName]; ok {
		return ends, nil
	}
	ends, err := e.client.EndOffsets(ctx, topicName)
	if err == nil {
		e.known[topicName] = ends
	}
	return ends, err
}

// FromKafka is the past as Kafka holds it.
func FromKafka(client *stream.Client) (keyed.Past, *Ends) {
	ends := NewEnds(client)
	return &keyed.LogPast{Stream: client, End: ends.Of}, ends
}
