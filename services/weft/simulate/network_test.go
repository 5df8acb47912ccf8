package simulate

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// pipe is the service's end of a connection. It never blocks but on channels, so that virtual time can go
// on, and its writes never block at all: kafka-go holds a lock while it writes.
type pipe struct {
	p       *process
	mu      sync.Mutex
	in      []byte        // to be read by the service
	out     []byte        // written by the service, not yet taken by the link
	err     error         // ends reading, after in
	cut     bool          // nothing goes out any more
	changed chan struct{} // closed at every change
	until   time.Time     // read deadline
}

var _ net.Conn = (*pipe)(nil)

func newPipe(p *process) *pipe { return &pipe{p: p, changed: make(chan struct{})} }

// change runs f under the lock and wakes whoever waits.
func (c *pipe) change(f func()) {
	c.mu.Lock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
}

// Read implements net.Conn. While the process is frozen it returns nothing, not even a deadline.
func (c *pipe) Read(b []byte) (int, error) {
	for {
		if frozen := c.p.frozen(); frozen != nil {
			<-frozen
		}
		c.mu.Lock()
		if len(c.in) > 0 {
			n := copy(b, c.in)
			c.in = c.in[n:]
			c.mu.Unlock()
			return n, nil
		}
		err, changed, until := c.err, c.changed, c.until
		c.mu.Unlock()
		if err != nil {
			return 0, err
		}
		var late <-chan time.Time
		if !until.IsZero() {
			left := time.Until(until)
			if left <= 0 {
				return 0, os.ErrDeadlineExceeded
			}
			t := time.NewTimer(left)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-changed:
		case <-late:
		}
	}
}

// Write implements net.Conn.
func (c *pipe) Write(b []byte) (int, error) {
	var err error
	c.change(func() {
		if c.err != nil || c.cut {
			err = errReset
			return
		}
		c.out = append(c.out, b...)
	})
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close implements net.Conn: by the service itself.
func (c *pipe) Close() error {
	c.end(net.ErrClosed)
	return nil
}

// end ends the connection for the service.
func (c *pipe) end(err error) {
	c.change(func() {
		if c.err == nil {
			c.err = err
		}
		c.cut = true
	})
}

var errReset = &net.OpError{Op: "read", Net: "sim", Err: errors.New("connection reset by peer")}

// LocalAddr implements net.Conn.
func (c *pipe) LocalAddr() net.Addr { return addr("service") }

// RemoteAddr implements net.Conn.
func (c *pipe) RemoteAddr() net.Addr { return addr("server") }

// SetDeadline implements net.Conn.
func (c *pipe) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *pipe) SetReadDeadline(t time.Time) error {
	c.change(func() { c.until = t })
	return nil
}

// SetWriteDeadline implements net.Conn: writes never wait.
func (c *pipe) SetWriteDeadline(time.Time) error { return nil }

type addr string

func (a addr) Network() string { return "sim" }
func (a addr) String() string  { return string(a) }

// take waits for the next whole request; nil: there will be none.
func (c *pipe) take(f framing) *message {
	for {
		c.mu.Lock()
		if m := f.request(c.out); m != nil {
			c.out = c.out[len(m.bytes):]
			c.mu.Unlock()
			return m
		}
		cut, changed := c.cut, c.changed
		c.mu.Unlock()
		if cut {
			return nil
		}
		<-changed
	}
}

// give hands an answer to the service.
func (c *pipe) give(b []byte) {
	c.change(func() {
		if c.err == nil {
			c.in = append(c.in, b...)
		}
	})
}

// link carries one connection of a process to a server, one request at a time, as both servers serve them.
type link struct {
	w       *world
	p       *process
	pipe    *pipe
	server  net.Conn
	framing framing
	r       *reader
	joining atomic.Bool // a join or a sync is with the server
}

// lose implements connection. A join that waits for its answer stays with the server, as that of a machine that is gone
// without a word: kfake gives no session to a member whose connection it knows to be closed, and then keeps it for ever, with
// its partitions. Kafka gives it one in either case.
func (l *link) lose() {
	l.pipe.end(errReset)
	if !l.joining.Load() {
		_ = l.server.Close()
	}
}

// dial makes a connection of a process to a server.
func (w *world) dial(p *process, server net.Conn, f framing) (net.Conn, error) {
	l := &link{w: w, p: p, pipe: newPipe(p), server: server, framing: f, r: &reader{conn: server}}
	if !p.adopt(l) {
		_ = server.Close()
		return nil, &net.OpError{Op: "dial", Net: "sim", Err: errors.New("connection refused")}
	}
	go l.run()
	return l.pipe, nil
}

// run carries requests out and answers back until the connection ends.
func (l *link) run() {
	keep := false // the server's side lives on, for a request that lands late
	defer func() {
		l.p.forget(l)
		l.pipe.end(errReset)
		if !keep {
			_ = l.server.Close()
		}
	}()
	for {
		m := l.pipe.take(l.framing)
		if m == nil {
			return
		}
		if !l.p.hold() { // written while the process is stopped: not out yet
			return
		}
		v := l.w.before(l.p, m)
		if !l.p.alive() {
			return
		}
		switch v.fault {
		case cutBefore:
			return
		case crashBefore:
			l.p.crash()
			return
		case late:
			keep = true
			l.p.forget(l)
			go l.land(m, v.delay)
			return
		case crashLate:
			keep = true
			l.p.forget(l)
			go l.land(m, v.delay)
			l.p.crash()
			return
		case refuse:
			l.pipe.give(l.framing.refuse(m))
			continue
		}
		if v.fault == freezeBefore {
			l.p.freeze(v.delay)
			if !l.p.hold() {
				return
			}
		}
		l.joining.Store(m.class == member)
		answer, err := l.exchange(m)
		l.joining.Store(false)
		if err != nil {
			return
		}
		if v.fault == freezeAfter { // the request was carried out; the process stops before it hears of it
			l.p.freeze(v.delay)
		}
		l.w.after(l.p, m, v)
		switch v.fault {
		case crashAfter:
			l.p.crash()
			return
		case cutAfter:
			return
		case timedOut:
			answer = l.framing.deny(m, answer, kerr.RequestTimedOut.Code)
		case tooFewCopies:
			answer = l.framing.deny(m, answer, kerr.NotEnoughReplicasAfterAppend.Code)
		}
		if answer == nil {
			l.w.violate("the simulation cannot answer %s so: %s", m.label, v.fault)
			return
		}
		l.pipe.give(answer)
	}
}

// land delivers a request after its sender has given it up.
func (l *link) land(m *message, delay time.Duration) {
	defer l.server.Close() //nolint:errcheck // nothing is pending
	time.Sleep(delay)
	_, err := l.exchange(m)
	l.w.trace("%s lands late: %s (%v)", l.p.name, m.label, err)
}

// exchange sends one request to the server and reads its answers. What ends it early closes l.server.
func (l *link) exchange(m *message) ([]byte, error) {
	sent := make(chan error, 1)
	go func() { // a server answers the first commands of a long pipeline before it has read the last
		_, err := l.server.Write(m.bytes)
		sent <- err
	}()
	var all []byte
	for range m.answers {
		b, err := l.framing.answer(l.r)
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	return all, <-sent
}

// reader gathers the bytes of an answer.
type reader struct {
	conn net.Conn
	buf  []byte
	got  []byte // of the answer being read
}

// full reads n bytes of the answer.
func (r *reader) full(n int) ([]byte, error) {
	for len(r.buf) < n {
		if err := r.more(); err != nil {
			return nil, err
		}
	}
	b := r.buf[:n]
	r.got = append(r.got, b...)
	r.buf = r.buf[n:]
	return b, nil
}

// line reads up to and with the next line's end.
func (r *reader) line() ([]byte, error) {
	for i := 0; ; i++ {
		for len(r.buf) <= i {
			if err := r.more(); err != nil {
				return nil, err
			}
		}
		if r.buf[i] == '\n' {
			return r.full(i + 1)
		}
	}
}

func (r *reader) more() error {
	r.buf = slices.Grow(r.buf, readAtLeast)
	n, err := r.conn.Read(r.buf[len(r.buf):cap(r.buf)])
	r.buf = r.buf[:len(r.buf)+n]
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// readAtLeast is the room for a read: most answers are small.
const readAtLeast = 512
