package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"unsafe"

	"github.com/redis/go-redis/v9"
)

// Pipe gathers commands that travel together. It is not safe for concurrent use and is used once.
type Pipe struct{ p redis.Pipeliner }

// Pipe starts a pipeline.
func (c *Client) Pipe() *Pipe { return &Pipe{c.rdb.Pipeline()} }

// Do queues a command; its reply is there after Exec. The second argument must be the key, by which a
// cluster's node is found.
func (p *Pipe) Do(ctx context.Context, args ...any) *Reply { return &Reply{cmd: p.p.Do(ctx, args...)} }

// Exec sends what was queued and waits for all replies. A missing key is no error.
func (p *Pipe) Exec(ctx context.Context) error {
	cmds, err := p.p.Exec(ctx)
	if err == nil || errors.Is(err, redis.Nil) {
		for _, c := range cmds {
			if e := c.Err(); e != nil && !errors.Is(e, redis.Nil) {
				return fmt.Errorf("pipeline: %w", classified(e))
			}
		}
		return nil
	}
	return fmt.Errorf("pipeline: %w", classified(err))
}

// Reply is the answer to one command, to be read after it has arrived.
type Reply struct{ cmd *redis.Cmd }

// Bytes is a bulk string, nil where there is none.
func (r *Reply) Bytes() []byte {
	s, err := r.cmd.Text()
	if err != nil {
		return nil
	}
	return []byte(s)
}

// Int is an integer reply or a number in a bulk string, 0 where there is none.
func (r *Reply) Int() int64 { return toInt(r.cmd.Val()) }

// Slice is an array's elements: nil for absent ones.
func (r *Reply) Slice() []Value {
	vs, err := r.cmd.Slice()
	if err != nil {
		return nil
	}
	out := make([]Value, len(vs))
	for i, v := range vs {
		out[i] = Value{v}
	}
	return out
}

// Value is one element of an array reply.
type Value struct{ v any }

// Text is the element as a string; false if it is absent.
func (v Value) Text() (string, bool) {
	switch x := v.v.(type) {
	case string:
		return x, true
	case int64:
		return strconv.FormatInt(x, 10), true
	}
	return "", false
}

// Bytes is the element, nil if it is absent. It is what the reply holds: it must not be written to.
func (v Value) Bytes() []byte {
	s, ok := v.v.(string)
	if !ok {
		return nil
	}
	return unsafe.Slice(unsafe.StringData(s), len(s)) //nolint:gosec // states are large and read once: no copy
}

// Int is the element as a number, 0 if it is absent or none.
func (v Value) Int() int64 { return toInt(v.v) }

func toInt(v any) int64 {
	switch x := v.(type) {
	case int64:
		return x
	case string:
		n, err := strconv.ParseInt(x, 10, 64)
		if err == nil {
			return n
		}
	}
	return 0
}

// Script is a Lua script, sent by its hash and, where Redis does not know it, in full.
type Script struct{ s *redis.Script }

// NewScript names a script's source.
func NewScript(src string) *Script { return &Script{redis.NewScript(src)} }

// Run runs the script; all keys must share one hash slot. After an error the outcome is unknown, and the
// client may have sent it more than once: scripts are guarded by what they compare.
func (s *Script) Run(ctx context.Context, c *Client, keys []string, args ...any) (*Reply, error) {
	cmd := s.s.Run(ctx, c.rdb, keys, args...)
	if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("run script: %w", classified(err))
	}
	return &Reply{cmd}, nil
}

// RunEach runs a script once for each of keys and args, in one pipelined round trip per node, and a second one for those on
// nodes that do not know it. It returns the texts of each answer, which must be an array of them. The keys of one run share a
// hash slot. After an error the outcome is unknown, and any may have run twice.
func (c *Client) RunEach(ctx context.Context, script string, keys [][]string, args [][]any) ([][][]byte, error) {
	sum := redis.NewScript(script).Hash()
	runs := make([]*redis.Cmd, len(keys))
	p := c.rdb.Pipeline()
	for i := range keys {
		runs[i] = p.EvalSha(ctx, sum, keys[i], args[i]...)
	}
	_, _ = p.Exec(ctx) // each command has its error
	full := c.rdb.Pipeline()
	for i, run := range runs {
		switch err := run.Err(); {
		case redis.HasErrorPrefix(err, "NOSCRIPT"):
			runs[i] = full.Eval(ctx, script, keys[i], args[i]...)
		case err != nil:
			return nil, fmt.Errorf("run script: %w", classified(err))
		}
	}
	if full.Len() > 0 {
		if _, err := full.Exec(ctx); err != nil {
			return nil, fmt.Errorf("run script: %w", classified(err))
		}
	}
	out := make([][][]byte, len(runs))
	for i, run := range runs {
		vs := (&Reply{run}).Slice()
		out[i] = make([][]byte, len(vs))
		for k, v := range vs {
			out[i][k] = v.Bytes()
		}
	}
	return out, nil
}
