package undo

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
)

// State is how far a command has come. The texts are a closed set.
type State string

// The states of a command.
const (
	Queued  State = "queued"  // it is in Kafka
	Running State = "running" // it is being carried out, or waits for something: see Status.Step and Status.Error
	Done    State = "done"
	Refused State = "refused" // and Status.Error says why; nothing has changed
)

// Ended says whether the state is a last one.
func (s State) Ended() bool { return s == Done || s == Refused }

// Status is what is known of a command.
type Status struct {
	ID     string               `json:"id"`
	Kind   identity.CommandKind `json:"kind"`
	Actor  string               `json:"actor"`
	Reason string               `json:"reason"`
	At     time.Time            `json:"at"`
	Offset int64                `json:"offset"` // of its record on identities.commands; -1: not known yet
	State  State                `json:"state"`
	Step   string               `json:"step,omitempty"`  // what it is at
	Error  string               `json:"error,omitempty"` // why it is refused, or what it waits for
	Began  *time.Time           `json:"began,omitempty"`
	Since  *time.Time           `json:"since,omitempty"` // when it came to Step
	Ended  *time.Time           `json:"ended,omitempty"`
	Counts map[string]int       `json:"counts,omitempty"` // what was done, such as events and parts
	// Parts are the nodes of the parts that a split has made, or the two of a reject: what a release takes back.
	Parts []string `json:"parts,omitempty"`
}

// Ledger keeps the states and plans of commands in Redis. It is safe for concurrent use.
type Ledger struct {
	store *store.Client
	tag   string
}

// NewLedger makes one; it reaches nothing.
func NewLedger(st *store.Client, t topic.Set) *Ledger {
	return &Ledger{store: st, tag: "{" + t.Prefix + "commands}"}
}

func (l *Ledger) statesKey() string        { return l.tag + "states" }
func (l *Ledger) planKey(id string) string { return l.tag + "plan:" + id }

// Queue notes a command that was published, unless more is known of it already.
func (l *Ledger) Queue(ctx context.Context, c *identity.Command) error {
	b, err := json.Marshal(Status{ID: c.ID, Kind: c.Kind, Actor: c.Actor, Reason: c.Reason, At: c.At, Offset: -1, State: Queued})
	if err != nil {
		return fmt.Errorf("note a command: %w", err)
	}
	_, err = l.store.Fact(ctx, l.statesKey(), c.ID, string(b))
	return err
}

// Put writes the status of a command.
func (l *Ledger) Put(ctx context.Context, s *Status) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("note a command: %w", err)
	}
	p := l.store.Pipe()
	p.Do(ctx, "HSET", l.statesKey(), s.ID, b)
	if err := p.Exec(ctx); err != nil {
		return fmt.Errorf("note a command: %w", err)
	}
	return nil
}

// Get reads the status of a command; false: nothing is known of it.
func (l *Ledger) Get(ctx context.Context, id string) (Status, bool, error) {
	p := l.store.Pipe()
	reply := p.Do(ctx, "HMGET", l.statesKey(), id)
	if err := p.Exec(ctx); err != nil {
		return Status{}, false, fmt.Errorf("read the state of a command: %w", err)
	}
	vs := reply.Slice()
	if len(vs) == 0 {
		return Status{}, false, nil
	}
	text, ok := vs[0].Text()
	if !ok {
		return Status{}, false, nil
	}
	var s Status
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return Status{}, false, fmt.Errorf("read the state of command %s: %w", id, err)
	}
	return s, true, nil
}

// List is all commands, the newest first.
func (l *Ledger) List(ctx context.Context) ([]Status, error) {
	p := l.store.Pipe()
	reply := p.Do(ctx, "HGETALL", l.statesKey())
	if err := p.Exec(ctx); err != nil {
		return nil, fmt.Errorf("list commands: %w", err)
	}
	vs := reply.Slice()
	out := make([]Status, 0, len(vs)/2)
	for i := 0; i+1 < len(vs); i += 2 {
		var s Status
		if err := json.Unmarshal(vs[i+1].Bytes(), &s); err != nil {
			return nil, fmt.Errorf("list commands: %w", err)
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.ID, b.ID)) })
	return out, nil
}

// Node is what commands have said of an identifier.
func (l *Ledger) Node(ctx context.Context, node string) (identity.NodeState, error) {
	s := identity.NodeState{Node: node}
	p := l.store.Pipe()
	reply := p.Do(ctx, "HMGET", l.tag+"nodes", node)
	if err := p.Exec(ctx); err != nil {
		return s, fmt.Errorf("read what is said of %s: %w", node, err)
	}
	if vs := reply.Slice(); len(vs) > 0 {
		if text, ok := vs[0].Text(); ok {
			if err := json.Unmarshal([]byte(text), &s); err != nil {
				return s, fmt.Errorf("read what is said of %s: %w", node, err)
			}
		}
	}
	return s, nil
}

// PutNode writes it.
func (l *Ledger) PutNode(ctx context.Context, s identity.NodeState) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("note what is said of %s: %w", s.Node, err)
	}
	p := l.store.Pipe()
	p.Do(ctx, "HSET", l.tag+"nodes", s.Node, b)
	if err := p.Exec(ctx); err != nil {
		return fmt.Errorf("note what is said of %s: %w", s.Node, err)
	}
	return nil
}

// Wait asks until a command has ended, or ctx ends.
func (l *Ledger) Wait(ctx context.Context, id string, every time.Duration, see func(Status)) (Status, error) {
	for {
		s, ok, err := l.Get(ctx, id)
		if err != nil {
			return s, err
		}
		if ok && see != nil {
			see(s)
		}
		if s.State.Ended() {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, fmt.Errorf("command %s is %s, at %q: %w", id, cmp.Or(s.State, Queued), s.Step, ctx.Err())
		case <-time.After(every):
		}
	}
}

// SavePlan keeps a part of the plan of a command under a name; it stands for good once it was written.
func (l *Ledger) SavePlan(ctx context.Context, id, name string, chunk any) error {
	b, err := json.Marshal(chunk)
	if err != nil {
		return fmt.Errorf("keep the plan of command %s: %w", id, err)
	}
	_, err = l.store.Fact(ctx, l.planKey(id), name, string(b))
	return err
}

// Plan reads a part of a plan; false: it was not written.
func (l *Ledger) Plan(ctx context.Context, id, name string, into any) (bool, error) {
	p := l.store.Pipe()
	reply := p.Do(ctx, "HMGET", l.planKey(id), name)
	if err := p.Exec(ctx); err != nil {
		return false, fmt.Errorf("read the plan of command %s: %w", id, err)
	}
	vs := reply.Slice()
	if len(vs) == 0 {
		return false, nil
	}
	text, ok := vs[0].Text()
	if !ok {
		return false, nil
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return false, fmt.Errorf("read the plan of command %s: %w", id, err)
	}
	return true, nil
}

// ForgetPlan drops the plan of a command that has ended.
func (l *Ledger) ForgetPlan(ctx context.Context, id string) error {
	p := l.store.Pipe()
	p.Do(ctx, "UNLINK", l.planKey(id))
	if err := p.Exec(ctx); err != nil {
		return fmt.Errorf("forget the plan of command %s: %w", id, err)
	}
	return nil
}

// Send publishes a command, and notes it.
func Send(ctx context.Context, client *stream.Client, l *Ledger, t topic.Set, c *identity.Command) error {
	if err := c.Check(); err != nil {
		return fmt.Errorf("command: %w", err)
	}
	value, err := c.Encode()
	if err != nil {
		return err
	}
	key := []byte(identity.CommandsKey)
	err = client.Produce(ctx, t.IdentitiesCommands(), topic.Partition(key, t.Partitions), []stream.Record{{
		Key: key, Value: value, Headers: []topic.Header{{Key: topic.HeaderSchema, Value: []byte(strconv.Itoa(topic.SchemaVersion))}},
	}})
	if err != nil {
		return fmt.Errorf("publish the command: %w", err)
	}
	return l.Queue(ctx, c)
}
