package suppression

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/store"
)

// Register is the people who were erased, in Redis: the nodes of their identifiers, which are keyed hashes, and nothing else.
// Collectors, stitchers and activators follow it (Erased); the executor of commands alone writes it. It is made of the
// commands on identities.commands and can be made of them again.
//
// It is a list to which changes are added at the end, so that who follows reads what is new and no more. Each entry is
// version, operation and 16 bytes: first the epoch, drawn at random when the list was begun, then nodes that are suppressed or no
// longer are. A follower that finds another epoch, or a list shorter than it has read, reads it from the start: Redis was
// lost, or went back.
type Register struct {
	store *store.Client
	key   string
}

// NewRegister makes the register of the deployment whose topics have this prefix; it reaches nothing.
func NewRegister(st *store.Client, prefix string) *Register {
	return &Register{store: st, key: "{" + prefix + "erased}log"}
}

// The form of an entry.
const (
	entryVersion = 1
	entryBytes   = 2 + len(identity.Node{})

	opEpoch  = 0
	opAdd    = 1
	opRemove = 2
)

// registerChunk is how many entries travel at once: Lua takes some 8,000 arguments, and a thousand are below a millisecond.
const registerChunk = 1000

// ErrNewerRegister means that a newer binary has written the register: who cannot read it must not guess.
var ErrNewerRegister = errors.New("the register of erased people was written by a newer binary")

// appendScript begins the list with an epoch if there is none, and adds entries: all or nothing.
var appendScript = store.NewScript(`
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('RPUSH', KEYS[1], ARGV[1]) end
for i = 2, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[i]) end
return 1`)

// Add suppresses nodes. It returns nil only when Redis has all of them; it may be repeated.
func (r *Register) Add(ctx context.Context, nodes []identity.Node) error {
	return r.append(ctx, opAdd, nodes)
}

// Remove takes nodes off. It returns nil only when Redis has it; it may be repeated.
func (r *Register) Remove(ctx context.Context, nodes []identity.Node) error {
	return r.append(ctx, opRemove, nodes)
}

func (r *Register) append(ctx context.Context, op byte, nodes []identity.Node) error {
	known, err := r.All(ctx)
	if err != nil {
		return err
	}
	var entries []any
	for _, n := range nodes {
		if _, in := known[n]; in != (op == opAdd) {
			entries = append(entries, entry(op, n))
		}
	}
	for len(entries) > 0 {
		chunk := entries[:min(len(entries), registerChunk)]
		entries = entries[len(chunk):]
		var epoch identity.Node
		_, _ = rand.Read(epoch[:]) // never fails
		if _, err := appendScript.Run(ctx, r.store, []string{r.key}, append([]any{entry(opEpoch, epoch)}, chunk...)...); err != nil {
			return fmt.Errorf("write the register of erased people: %w", err)
		}
	}
	return nil
}

func entry(op byte, n identity.Node) string { return string(append([]byte{entryVersion, op}, n[:]...)) }

// All is everybody on the register.
func (r *Register) All(ctx context.Context) (map[identity.Node]struct{}, error) {
	all := map[identity.Node]struct{}{}
	var at mark
	for {
		c, err := r.since(ctx, at)
		if err != nil {
			return nil, err
		}
		if c.anew {
			clear(all)
		}
		if c.apply(all); !c.more {
			return all, nil
		}
		at = c.at
	}
}

// mark is up to where a reader has read: the epoch, and the number of entries.
type mark struct {
	epoch identity.Node
	read  int64
}

// changes is what stands on the list behind a mark.
type changes struct {
	at   mark
	anew bool // it is not the list that the mark was of: this is from its start
	more bool
	ops  []byte
	on   []identity.Node
}

func (c *changes) apply(all map[identity.Node]struct{}) {
	for i, n := range c.on {
		if c.ops[i] == opAdd {
			all[n] = struct{}{}
		} else {
			delete(all, n)
		}
	}
}

// readChunk is how many entries one reading takes: 18 bytes each.
const readChunk = 100_000

// since reads what is new: one round trip, and two where the list is another than it was.
func (r *Register) since(ctx context.Context, at mark) (changes, error) {
	from := max(at.read, 1)
	p := r.store.Pipe()
	first, size, news := p.Do(ctx, "LINDEX", r.key, 0), p.Do(ctx, "LLEN", r.key), p.Do(ctx, "LRANGE", r.key, from, from+readChunk-1)
	if err := p.Exec(ctx); err != nil {
		return changes{}, fmt.Errorf("read the register of erased people: %w", err)
	}
	var epoch identity.Node
	if b := first.Bytes(); b != nil {
		op, n, err := parseEntry(b)
		if err != nil {
			return changes{}, err
		}
		if op != opEpoch {
			return changes{}, errors.New("read the register of erased people: it does not begin with its epoch")
		}
		epoch = n
	}
	if at.read > 0 && (epoch != at.epoch || size.Int() < at.read) {
		c, err := r.since(ctx, mark{})
		c.anew = true
		return c, err
	}
	c := changes{at: mark{epoch, from}}
	for _, v := range news.Slice() {
		op, n, err := parseEntry(v.Bytes())
		if err != nil {
			return changes{}, err
		}
		c.ops, c.on = append(c.ops, op), append(c.on, n)
		c.at.read++
	}
	c.more = len(c.on) == readChunk
	if first.Bytes() == nil {
		c.at = mark{}
	}
	return c, nil
}

func parseEntry(b []byte) (op byte, n identity.Node, err error) {
	switch {
	case len(b) > 0 && b[0] > entryVersion:
		return 0, n, fmt.Errorf("%w: version %d, known %d", ErrNewerRegister, b[0], entryVersion)
	case len(b) != entryBytes || b[0] != entryVersion || b[1] > opRemove:
		return 0, n, fmt.Errorf("read the register of erased people: %x is no entry", b)
	}
	return b[1], identity.Node(b[2:]), nil
}
