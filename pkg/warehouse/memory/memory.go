// Package memory is a ClickHouse in memory, as journey-writer sees it: the tables it fills, with what
// deduplication by token promises and what it does not.
//
// It owns: the rows and tokens of a Server, and the moment at which a Call takes effect, which a test may
// choose. It guarantees what pkg/warehouse/conformance checks, which a real ClickHouse is held to as well: one
// insert is one block per month of receipt, each stored as a whole or not at all; a table remembers the
// tokens of its last blocks, and a block whose token it remembers is not stored again, whatever it holds; an
// insert is not sent after its deadline, and not begun by the server after its limit.
//
// It must not know SQL, views or queries: what is stored is read as rows.
package memory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/warehouse"
)

// DefaultWindow is non_replicated_deduplication_window of the tables (schemas/clickhouse).
const DefaultWindow = 10_000

// ErrLost is what a caller gets of a call whose answer was lost, if the fault names no other.
var ErrLost = errors.New("read: connection reset by peer")

// errLimit is the server's refusal of an insert that took longer than it may.
var errLimit = errors.New("code: 159, message: Timeout exceeded")

// Options of a Server.
type Options struct {
	// Window is how many blocks back a table remembers tokens; 0: DefaultWindow.
	Window int
	// Now is the server's clock; nil: time.Now.
	Now func() time.Time
}

// Row is one stored row.
type Row struct {
	warehouse.Origin
	InsertedAt time.Time
	Values     map[string]string // by column, as ClickHouse prints them; NULL is left out
}

// Server holds what is stored. It is safe for concurrent use.
type Server struct {
	opt Options

	mu     sync.Mutex
	tables map[string]*table // nil: the schema was not migrated yet
}

type table struct {
	rows   []Row
	tokens []string // of the last blocks, each with its month
}

// NewServer makes an empty server, without a schema.
func NewServer(opt Options) *Server {
	if opt.Window <= 0 {
		opt.Window = DefaultWindow
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	return &Server{opt: opt}
}

// Rows is what a table holds, in the order of storing. The caller must not change the values.
func (s *Server) Rows(name string) []Row {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tables[name]; t != nil {
		return slices.Clone(t.rows)
	}
	return nil
}

// Forget has a table remember n blocks of others: the tokens of as many before fall out of its window.
func (s *Server) Forget(name string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.table(name); t != nil {
		for range min(n, s.opt.Window) {
			t.remember("", s.opt.Window)
		}
	}
}

// migrate makes all tables.
func (s *Server) migrate() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tables == nil {
		s.tables = map[string]*table{}
	}
	return nil
}

// table is a table that exists; nil: the schema is missing. The caller holds the lock.
func (s *Server) table(name string) *table {
	if s.tables == nil {
		return nil
	}
	if s.tables[name] == nil {
		s.tables[name] = &table{}
	}
	return s.tables[name]
}

// errNoTable is the refusal of a question about a table that was not made yet.
func errNoTable(name string) error {
	return fmt.Errorf("%w: code: 60, message: Unknown table %s", warehouse.ErrPermanent, name)
}

func (t *table) remember(token string, window int) {
	t.tokens = append(t.tokens, token)
	if extra := len(t.tokens) - window; extra > 0 {
		t.tokens = slices.Delete(t.tokens, 0, extra)
	}
}

// block is the rows of an insert that fall into one month.
type block struct {
	month string
	rows  []Row
}

// blocksOf cuts rows as the tables are partitioned: by month of receipt, those without one not at all.
func blocksOf(rows warehouse.Rows) ([]block, error) {
	var out []block
	for i, values := range rows.Values() {
		r := Row{Values: values, Origin: warehouse.Origin{Topic: values["topic"]}}
		partition, err := strconv.ParseUint(values["partition"], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("partition of row %d: %w", i, err)
		}
		if r.Offset, err = strconv.ParseUint(values["offset"], 10, 64); err != nil {
			return nil, fmt.Errorf("offset of row %d: %w", i, err)
		}
		r.Partition = uint32(partition)
		month := ""
		if at := values["received_at"]; at != "" {
			month = at[:len("2006-01")]
		}
		at := slices.IndexFunc(out, func(b block) bool { return b.month == month })
		if at < 0 {
			at, out = len(out), append(out, block{month: month})
		}
		out[at].rows = append(out[at].rows, r)
	}
	return out, nil
}

// insert stores the blocks whose tokens are not remembered.
func (s *Server) insert(name, token string, blocks []block) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table(name)
	if t == nil {
		return errNoTable(name)
	}
	now := s.opt.Now()
	for _, b := range blocks {
		own := b.month + "|" + token
		if slices.Contains(t.tokens, own) {
			continue
		}
		t.remember(own, s.opt.Window)
		for _, r := range b.rows {
			r.InsertedAt = now
			t.rows = append(t.rows, r)
		}
	}
	return nil
}

// Op is what a call asks for.
type Op string

// The calls of a Client.
const (
	OpMigrate = Op("migrate")
	OpInsert  = Op("insert")
	OpStored  = Op("read back offsets")
	OpHighest = Op("read highest offset")
	OpReload  = Op("reload persons")
)

// Call is one request on its way to the server.
type Call struct {
	Op    Op
	Table string // of an insert and of a read-back
	Token string // of an insert
	Rows  int    // of an insert
	// Blocks is how many blocks an insert consists of: one per month of receipt.
	Blocks int

	do func(blocks int) error
}

// Do lets the call reach the server, and is the server's answer. It may be called later than the fault
// returns, by any goroutine, and more than once, as a network may deliver.
func (c *Call) Do() error { return c.do(c.Blocks) }

// DoHalf is an insert during which the server dies: only its first blocks are stored.
func (c *Call) DoHalf(blocks int) error {
	if err := c.do(min(blocks, c.Blocks)); err != nil {
		return err
	}
	return ErrLost
}

// Fault decides what becomes of a call; what it returns is what the caller gets. It may call Do or not,
// before or after anything else, and block. An insert comes to it when its deadline was checked.
type Fault func(ctx context.Context, c *Call) error

// Client is one process' connection to a Server: what *warehouse.Client is to ClickHouse. It is safe for
// concurrent use if its fault is.
type Client struct {
	server *Server
	fault  Fault
}

// Client makes a connection; a nil fault lets all go well.
func (s *Server) Client(fault Fault) *Client {
	if fault == nil {
		fault = func(ctx context.Context, c *Call) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return c.Do()
		}
	}
	return &Client{server: s, fault: fault}
}

// Migrate is *warehouse.Client's; it reads no file.
func (c *Client) Migrate(ctx context.Context, _ fs.FS, _ *zap.Logger) error {
	return c.fault(ctx, &Call{Op: OpMigrate, do: func(int) error { return c.server.migrate() }})
}

// Insert is *warehouse.Client's.
func (c *Client) Insert(ctx context.Context, rows warehouse.Rows, t warehouse.Token, now func() time.Time) error {
	if rows.Rows() == 0 {
		return nil
	}
	wrap := func(err error) error {
		if err == nil {
			return nil
		}
		return fmt.Errorf("insert %d rows into %s: %w", rows.Rows(), rows.Table(), err)
	}
	blocks, err := blocksOf(rows)
	if err != nil {
		return wrap(fmt.Errorf("%w: %w", warehouse.ErrPermanent, err))
	}
	sent := now()
	if !t.Deadline.IsZero() && sent.After(t.Deadline) {
		return wrap(warehouse.ErrDeadline)
	}
	begun := c.server.opt.Now()
	name := rows.Table()
	return wrap(c.fault(ctx, &Call{Op: OpInsert, Table: name, Token: t.Text, Rows: rows.Rows(), Blocks: len(blocks), do: func(n int) error {
		if c.server.opt.Now().After(begun.Add(t.Limit)) {
			return errLimit
		}
		return c.server.insert(name, t.Text, blocks[:n])
	}}))
}

// StoredOffsets is *warehouse.Client's.
func (c *Client) StoredOffsets(ctx context.Context, name, topicName string, partition int, from, to int64, since time.Time) (map[uint64]bool, error) {
	out := map[uint64]bool{}
	err := c.fault(ctx, &Call{Op: OpStored, Table: name, do: func(int) error {
		s := c.server
		s.mu.Lock()
		defer s.mu.Unlock()
		t := s.table(name)
		if t == nil {
			return errNoTable(name)
		}
		for _, r := range t.rows {
			if at := int64(r.Offset); r.of(topicName, partition) && at >= from && at < to && !r.InsertedAt.Before(since.Truncate(time.Millisecond)) { //nolint:gosec // offsets are Kafka's, below 2^63
				out[r.Offset] = true
			}
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// HighestOffset is *warehouse.Client's.
func (c *Client) HighestOffset(ctx context.Context, topicName string, partition int, tables ...string) (highest int64, some bool, err error) {
	err = c.fault(ctx, &Call{Op: OpHighest, do: func(int) error {
		s := c.server
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.tables == nil {
			return errNoTable("events")
		}
		for name, t := range s.tables {
			if len(tables) > 0 && !slices.Contains(tables, name) {
				continue
			}
			for _, r := range t.rows {
				if r.of(topicName, partition) {
					highest, some = max(highest, int64(r.Offset)), true //nolint:gosec // offsets are Kafka's, below 2^63
				}
			}
		}
		return nil
	}})
	if err != nil {
		return 0, false, err
	}
	return highest, some, nil
}

// ReloadPersons is *warehouse.Client's; there is nothing to load.
func (c *Client) ReloadPersons(ctx context.Context) error {
	return c.fault(ctx, &Call{Op: OpReload, do: func(int) error { return nil }})
}

func (r Row) of(topicName string, partition int) bool {
	return r.Topic == topicName && int(r.Partition) == partition
}
