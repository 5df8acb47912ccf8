// Package commands carries out what operators say of identities: it reads identities.commands, one command at a time and in
// order, and changes the graph, the stages behind it and ClickHouse by it.
//
// It owns: the steps of each kind of command, their order, and the records of stage identity-commands. It guarantees that a
// command that has begun ends, however often the process dies on the way, and has its effect once: each step may be repeated,
// what is told is planned and stored before anything is told, and every record carries the same position each time. While a
// split is being carried out nothing is decided about anybody: it is registered where the fence looks. A command that cannot be
// read, or is refused, ends with its reason and holds up nobody. What it waits for (ClickHouse, another stage) it says in the
// log, in metrics and in its status.
//
// It must not know how a component is taken apart (package identity), nor which event is whose part (package undo).
package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/spool/registry"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/undo"
)

const (
	// fetchWait is how long one request for commands waits: they are rare.
	fetchWait = time.Second
	// retryFirst and retryMost bound the pause before a step is tried again.
	retryFirst, retryMost = 250 * time.Millisecond, 10 * time.Second
)

// Graph is what a command changes of the graph; *identity.Resolver has it.
type Graph interface {
	Resolve(ctx context.Context, batch []identity.Request) ([]identity.Result, error)
	Confirm(ctx context.Context, losers []identity.Node) error
	Split(ctx context.Context, o identity.SplitOrder, publish func(ctx context.Context, merges []identity.Merge) error) ([]identity.PartedNode, error)
	Release(ctx context.Context, nodes []identity.Node) ([]uint64, error)
	Cut(ctx context.Context, a, b identity.Node) error
	SetBlocked(ctx context.Context, n identity.Node, blocked bool) error
}

// Kafka is what is asked of Kafka; *stream.Client has it.
type Kafka interface {
	Produce(ctx context.Context, topicName string, partition int, recs []stream.Record) error
	Committed(ctx context.Context, group, topicName string) ([]stream.Committed, error)
}

// Holds is where what the fence waits for is registered; *registry.Registry has it.
type Holds interface {
	Register(ctx context.Context, e registry.Entry) error
	Unregister(ctx context.Context, id string) error
}

// Warehouse is what is asked of ClickHouse.
type Warehouse interface {
	Select(ctx context.Context, dest any, sql string, args ...any) error
}

// A Handler carries a command out. It may be called again after any error or crash, from its first step. What it returns by
// Refuse ends the command; any other error is transient: it is tried again.
type Handler func(ctx context.Context, r *Run) error

// Deps are the parts that the executor stands on. Warehouse and Metrics may be missing.
type Deps struct {
	Stream    *stream.Client
	Store     *store.Client
	Graph     Graph
	Rules     *identity.Rules
	Topics    topic.Set
	Warehouse Warehouse // nil: what needs it is refused
	Log       *zap.Logger
	Metrics   prometheus.Registerer
	Now       func() time.Time
	// More are handlers of kinds that this package does not know, such as erase.
	More map[identity.CommandKind]Handler
}

// Executor is stage identity-commands.
type Executor struct {
	deps     Deps
	kafka    Kafka
	holds    Holds
	ledger   *undo.Ledger
	history  *undo.History // nil: there is no ClickHouse
	through  func(ctx context.Context, edges []keyed.Edge) error
	handlers map[identity.CommandKind]Handler
	metrics  *metrics
	pause    func(ctx context.Context, d time.Duration) error
}

// New makes an executor. It reaches nothing.
func New(deps Deps) (*Executor, error) {
	m, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, fmt.Errorf("identity-commands: %w", err)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	x := &Executor{
		deps: deps, kafka: deps.Stream, holds: registry.New(deps.Store, deps.Topics), ledger: undo.NewLedger(deps.Store, deps.Topics), metrics: m, pause: sleep,
	}
	x.through = func(ctx context.Context, edges []keyed.Edge) error {
		return keyed.NewFence(edges, deps.Topics, 0, keyed.Deps{Stream: deps.Stream, Store: deps.Store, Log: deps.Log, Now: deps.Now}).Walk(ctx)
	}
	if deps.Warehouse != nil {
		x.history = undo.NewHistory(deps.Warehouse, deps.Rules)
	}
	x.handlers = map[identity.CommandKind]Handler{
		identity.CommandSplit: x.split, identity.CommandLink: x.link, identity.CommandReject: x.reject,
		identity.CommandBlock: x.block, identity.CommandUnblock: x.block, identity.CommandRelease: x.release,
	}
	for kind, h := range deps.More {
		x.handlers[kind] = h
	}
	return x, nil
}

// Run carries commands out until ctx ends.
func (x *Executor) Run(ctx context.Context) error {
	input := x.deps.Topics.IdentitiesCommands()
	err := x.deps.Stream.RunGroup(ctx, stream.GroupOptions{Group: x.deps.Topics.Group(topic.StageCommands, input), Topics: []string{input}}, x.own)
	if err != nil {
		return fmt.Errorf("identity-commands: %w", err)
	}
	return nil
}

// own carries out the commands of a partition. All lie in one.
func (x *Executor) own(ctx context.Context, cl *stream.Claim) error {
	f := x.deps.Stream.NewFetcher(cl.Topic, cl.Partition, max(0, cl.Offset), stream.FetchOptions{})
	defer f.Close()
	done := cl.Offset
	for ctx.Err() == nil {
		b, err := f.Fetch(ctx, fetchWait)
		if err != nil {
			return ended(ctx, err)
		}
		for _, r := range stream.Clone(b.Records) {
			if err := x.Carry(ctx, r); err != nil {
				return ended(ctx, err)
			}
			if err := cl.Commit(ctx, r.Offset+1, ""); err != nil {
				return ended(ctx, err)
			}
			done = r.Offset + 1
		}
		if b.Next > done || done < 0 { // the first look, or control records
			if err := cl.Commit(ctx, b.Next, ""); err != nil {
				return ended(ctx, err)
			}
			done = b.Next
		}
	}
	return nil
}

// ended is nil where an error is but that the owner is to end.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Carry carries one command out to its end. It returns an error only if ctx ends.
func (x *Executor) Carry(ctx context.Context, rec stream.Record) error {
	r := &Run{x: x, Partition: rec.Partition, Offset: rec.Offset}
	c, err := identity.ParseCommand(rec.Value)
	r.Command = c
	if err != nil {
		_ = json.Unmarshal(rec.Value, &r.Command) // what of it can be read, for its status
		if r.Command.ID == "" {
			x.metrics.ended.WithLabelValues("unreadable", string(undo.Refused)).Inc()
			x.deps.Log.Error("a command can not be read, and is passed", zap.Error(err), zap.Int64("offset", rec.Offset))
			return nil
		}
		err = &refusal{err}
	}
	x.metrics.running.Set(float64(x.deps.Now().Unix()))
	defer x.metrics.running.Set(0)
	wait := retryFirst
	for {
		over, again := x.attempt(ctx, r, err)
		if over {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("command %s: %w", r.Command.ID, ctx.Err())
		}
		x.metrics.retries.Inc()
		x.deps.Log.Warn("a command is held, and tried again", zap.String("command", r.Command.ID), zap.String("step", r.status.Step), zap.Error(again))
		r.waits(ctx, again)
		if x.pause(ctx, wait) != nil {
			return fmt.Errorf("command %s: %w", r.Command.ID, ctx.Err())
		}
		wait = min(2*wait, retryMost)
	}
}

// attempt tries to carry a command out; unread is why it can not be read. over: it has ended, and nothing of it is left.
func (x *Executor) attempt(ctx context.Context, r *Run, unread error) (over bool, err error) {
	known, err := r.begin(ctx)
	if err != nil {
		return false, err
	}
	if known.Offset >= 0 && known.Offset != r.Offset { // another record has this id
		x.deps.Log.Warn("a command has the id of an earlier one, and is passed", zap.String("command", r.Command.ID))
		return true, nil
	}
	if !known.State.Ended() {
		err := unread
		if h := x.handlers[r.Command.Kind]; err == nil && h == nil {
			err = Refuse("kind: %s is not carried out by this version", r.Command.Kind)
		} else if err == nil {
			err = h(ctx, r)
		}
		var no *refusal
		if err != nil && !errors.As(err, &no) {
			return false, err
		}
		if err := r.end(ctx, no); err != nil {
			return false, err
		}
	}
	if err := r.Unhold(ctx); err != nil {
		return false, err
	}
	return true, x.ledger.ForgetPlan(ctx, r.Command.ID)
}

// refusal is why a command is not carried out.
type refusal struct{ why error }

func (r *refusal) Error() string { return r.why.Error() }
func (r *refusal) Unwrap() error { return r.why }

// Refuse makes an error that ends a command.
func Refuse(format string, args ...any) error { return &refusal{fmt.Errorf(format, args...)} }

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func schemaHeader() topic.Header {
	return topic.Header{Key: topic.HeaderSchema, Value: []byte(strconv.Itoa(topic.SchemaVersion))}
}
