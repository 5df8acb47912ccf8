// Package registry is where collectors say that they have acknowledged events which are not in Kafka yet.
//
// It owns: one Redis hash of registrations, one field each, and beside it, in the same slot of a Redis Cluster,
// what an operator has said about them, and how many partitions the topics had when they were seen last. It guarantees that a registration which Register has confirmed is seen by
// every List that begins afterwards, as long as Redis keeps what it acknowledged. An id is used for one
// registration only, so that a late copy of an Unregister takes away nothing else.
//
// It must not know what is spooled (package spool) nor what waits for it (package keyed's fence).
package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/topic"
)

// Entry is one registration: a spool has, or may have, acknowledged events that are not in Kafka.
type Entry struct {
	ID       string    `json:"-"`     // unique for ever
	Spool    string    `json:"spool"` // id of the spool's directory
	Host     string    `json:"host"`
	Dir      string    `json:"dir"`
	Since    time.Time `json:"since"`
	Override *Note     `json:"-"` // an operator's word that nothing waits for it
}

// Note is what an operator did, and why.
type Note struct {
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	Entry  *Entry    `json:"entry,omitempty"` // of a registration that was forgotten
}

// Registry is the registrations of one deployment. It is safe for concurrent use.
type Registry struct {
	store *store.Client
	tag   string
}

// New makes one; it reaches nothing.
func New(st *store.Client, t topic.Set) *Registry {
	return &Registry{store: st, tag: "{" + t.Prefix + "spools}"}
}

func (r *Registry) entriesKey() string    { return r.tag + "entries" }
func (r *Registry) overridesKey() string  { return r.tag + "overrides" }
func (r *Registry) forgottenKey() string  { return r.tag + "forgotten" }
func (r *Registry) deploymentKey() string { return r.tag + "deployment" }

// Register writes e, and may be repeated. It returns nil only when Redis has it; after an error it may have it.
func (r *Registry) Register(ctx context.Context, e Entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("register spool: %w", err)
	}
	p := r.store.Pipe()
	p.Do(ctx, "HSET", r.entriesKey(), e.ID, b)
	if err := p.Exec(ctx); err != nil {
		return fmt.Errorf("register spool: %w", err)
	}
	return nil
}

// Unregister takes a registration away, with what an operator said of it.
func (r *Registry) Unregister(ctx context.Context, id string) error {
	p := r.store.Pipe()
	p.Do(ctx, "HDEL", r.entriesKey(), id)
	p.Do(ctx, "HDEL", r.overridesKey(), id)
	if err := p.Exec(ctx); err != nil {
		return fmt.Errorf("unregister spool: %w", err)
	}
	return nil
}

// List returns all registrations, the oldest first.
func (r *Registry) List(ctx context.Context) ([]Entry, error) {
	p := r.store.Pipe()
	all, overrides := p.Do(ctx, "HGETALL", r.entriesKey()), p.Do(ctx, "HGETALL", r.overridesKey())
	if err := p.Exec(ctx); err != nil {
		return nil, fmt.Errorf("list registered spools: %w", err)
	}
	said := map[string]*Note{}
	err := fields(overrides, func(id string, b []byte) error {
		said[id] = new(Note)
		return json.Unmarshal(b, said[id])
	})
	if err != nil {
		return nil, fmt.Errorf("read overrides of spools: %w", err)
	}
	var entries []Entry
	err = fields(all, func(id string, b []byte) error {
		e := Entry{}
		err := json.Unmarshal(b, &e)
		e.ID, e.Override = id, said[id]
		entries = append(entries, e)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read registered spools: %w", err)
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		if c := a.Since.Compare(b.Since); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return entries, nil
}

// partitionsField of the hash that deploymentKey names.
const partitionsField = "partitions"

// NotePartitions says how many partitions the topics have that collectors write to, for those that start while Kafka
// does not answer: what they spooled by another count would go to wrong partitions.
func (r *Registry) NotePartitions(ctx context.Context, n int) error {
	p := r.store.Pipe()
	p.Do(ctx, "HSET", r.deploymentKey(), partitionsField, n)
	if err := p.Exec(ctx); err != nil {
		return fmt.Errorf("note the count of partitions: %w", err)
	}
	return nil
}

// Partitions is what was noted last; 0: nothing ever was.
func (r *Registry) Partitions(ctx context.Context) (int, error) {
	p := r.store.Pipe()
	noted := p.Do(ctx, "HMGET", r.deploymentKey(), partitionsField)
	if err := p.Exec(ctx); err != nil {
		return 0, fmt.Errorf("read the count of partitions: %w", err)
	}
	vs := noted.Slice()
	if len(vs) == 0 {
		return 0, nil
	}
	text, ok := vs[0].Text()
	if !ok {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("read the count of partitions: %w", err)
	}
	return n, nil
}

// fields calls f with the fields of a hash.
func fields(reply *store.Reply, f func(id string, b []byte) error) error {
	vs := reply.Slice()
	for i := 0; i+1 < len(vs); i += 2 {
		id, _ := vs[i].Text()
		if err := f(id, vs[i+1].Bytes()); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
	}
	return nil
}

// Override notes that nothing waits for this registration any more, though it stands. It ends with it.
func (r *Registry) Override(ctx context.Context, e Entry, n Note) error {
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("override spool: %w", err)
	}
	p := r.store.Pipe()
	p.Do(ctx, "HSET", r.overridesKey(), e.ID, b)
	if err := p.Exec(ctx); err != nil {
		return fmt.Errorf("override spool: %w", err)
	}
	return nil
}

// Forget takes the registration of a spool away that will not be drained, and keeps why.
func (r *Registry) Forget(ctx context.Context, e Entry, n Note) error {
	n.Entry = &e
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("forget spool: %w", err)
	}
	p := r.store.Pipe()
	p.Do(ctx, "HSET", r.forgottenKey(), e.ID, b)
	if err := p.Exec(ctx); err != nil {
		return fmt.Errorf("forget spool: %w", err)
	}
	return r.Unregister(ctx, e.ID)
}

// Forgotten is what was said of registrations that were forgotten, by their ids.
func (r *Registry) Forgotten(ctx context.Context) (map[string]Note, error) {
	p := r.store.Pipe()
	all := p.Do(ctx, "HGETALL", r.forgottenKey())
	if err := p.Exec(ctx); err != nil {
		return nil, fmt.Errorf("list forgotten spools: %w", err)
	}
	notes := map[string]Note{}
	err := fields(all, func(id string, b []byte) error {
		var n Note
		err := json.Unmarshal(b, &n)
		notes[id] = n
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read forgotten spools: %w", err)
	}
	return notes, nil
}
