package warehouse

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
)

const (
	// maxInserts is how many inserts may be on their way at once: one per partition and topic might, and a
	// 2-core server gains nothing from more.
	maxInserts = 16
	// maxInsertBytes is how many bytes of blocks may be on their way at once. A connection copies a block, and
	// compresses it into memory of the same size at worst; a larger block goes alone.
	maxInsertBytes = 16 << 20
	// maxHeldBytes is how much of that memory the idle connections keep for the next blocks: one of the largest
	// blocks, with what its rows take beyond their records, twice.
	maxHeldBytes = 5 * maxInsertBytes / 2
	// maxIdle is how long a connection may lie idle and still be used: servers and proxies end those that
	// rest for long, and an insert would be the first to find out.
	maxIdle = time.Minute
	// packetWait is how long one read waits before it looks whether the caller has given up.
	packetWait = 500 * time.Millisecond
)

// inserts is the connections that inserts go over: those of ch-go, clickhouse-go's own lower layer, since
// clickhouse-go itself boxes and copies every value of a block.
type inserts struct {
	options   ch.Options
	addresses []string

	slots chan struct{} // one per insert on its way

	mu     sync.Mutex
	idle   []*insertConn
	closed bool
	held   int           // by the idle ones
	bytes  int           // of blocks on their way
	freed  chan struct{} // closed, and made anew, when bytes get fewer
}

type insertConn struct {
	*ch.Client
	buf  *proto.Buffer // where it gathers what it sends
	held int           // bytes of memory, there and where it compresses
	used time.Time
}

func newInserts(o ch.Options, addresses []string) *inserts {
	return &inserts{options: o, addresses: addresses, slots: make(chan struct{}, maxInserts), freed: make(chan struct{})}
}

var errClosed = errors.New("client is closed")

// get waits for a turn for a block of so many bytes, and for a connection.
func (p *inserts) get(ctx context.Context, size int) (*insertConn, error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := p.admit(ctx, size); err != nil {
		<-p.slots
		return nil, err
	}
	c, err := p.connection(ctx)
	if err != nil {
		p.leave(size)
	}
	return c, err
}

// admit waits until the bytes on their way leave room for size more.
func (p *inserts) admit(ctx context.Context, size int) error {
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return errClosed
		}
		if p.bytes == 0 || p.bytes+size <= maxInsertBytes {
			p.bytes += size
			p.mu.Unlock()
			return nil
		}
		freed := p.freed
		p.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leave ends a turn.
func (p *inserts) leave(size int) {
	p.mu.Lock()
	p.bytes -= size
	close(p.freed)
	p.freed = make(chan struct{})
	p.mu.Unlock()
	<-p.slots
}

// connection takes the one that was used last, or makes one with the first address that answers.
func (p *inserts) connection(ctx context.Context) (*insertConn, error) {
	for {
		p.mu.Lock()
		var c *insertConn
		if n := len(p.idle); n > 0 {
			c, p.idle = p.idle[n-1], p.idle[:n-1]
			p.held -= c.held
		}
		p.mu.Unlock()
		if c == nil {
			break
		}
		if time.Since(c.used) < maxIdle {
			return c, nil
		}
		_ = c.Close() // it was idle: nothing is lost
	}
	var errs []error
	for _, address := range p.addresses {
		o := p.options
		o.Address = address
		c := &insertConn{buf: &proto.Buffer{}}
		var err error
		if c.Client, err = ch.DialWithBuffer(ctx, o, c.buf); err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// put gives a connection back; one that met an error is not used again: what is left in it is unknown.
func (p *inserts) put(c *insertConn, size int, err error) {
	defer p.leave(size)
	c.held = max(c.held, 2*size)
	c.used = time.Now()
	p.mu.Lock()
	keep := err == nil && !c.IsClosed() && !p.closed && p.held+c.held <= maxHeldBytes
	if keep {
		p.idle = append(p.idle, c)
		p.held += c.held
	}
	p.mu.Unlock()
	if !keep {
		_ = c.Close() // may be closed already
	}
}

// close ends the connections that are idle, and each other when it comes back.
func (p *inserts) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.idle {
		_ = c.Close() // nothing is on its way
	}
	p.idle = nil
}
