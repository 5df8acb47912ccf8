package simulate

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/weft-cdp/weft/pkg/config"
)

// The sources that may send over HTTP, with the keys they have.
// sources are servers: the body of an event is what was sent.
var sources = []config.Source{{Name: "web", Kind: config.KindServer, WriteKey: "web-key", Trusted: true}, {Name: "shop", WriteKey: "shop-key", Trusted: true}}

const (
	// produceTimeout is after what time the door answers 503, and sdkTimeout after what a source waits no more: as
	// those of the defaults to each other, but schedules are short.
	produceTimeout = 2 * time.Second
	sdkTimeout     = 3 * time.Second
	// manyCalls are more connections than ever wait to be accepted.
	manyCalls = 64
)

// gate is the HTTP port of a process.
type gate struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

var _ net.Listener = (*gate)(nil)

// listen opens the port of a process.
func (p *process) listen(string, string) (net.Listener, error) {
	g := &gate{conns: make(chan net.Conn, manyCalls), closed: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate = g
	return g, nil
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	select {
	case c := <-g.conns:
		return c, nil
	case <-g.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (g *gate) Close() error {
	g.once.Do(func() { close(g.closed) })
	return nil
}

// Addr implements net.Listener.
func (g *gate) Addr() net.Addr { return addr("door") }

var errRefused = &net.OpError{Op: "dial", Net: "sim", Err: errors.New("connection refused")}

// call is one HTTP request over a connection of its own. It is a connection of the process: a crash ends it.
type call struct{ pipe *pipe }

func (c *call) lose() { c.pipe.end(errReset) }

// dialed connects to the process' port.
func (p *process) dialed() (*call, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || p.gate == nil {
		return nil, errRefused
	}
	select {
	case <-p.gate.closed:
		return nil, errRefused
	default:
	}
	c := &call{pipe: newPipe(p)}
	select {
	case p.gate.conns <- c.pipe:
	default:
		return nil, errRefused
	}
	p.links[c] = true
	return c, nil
}

// answered is what a source hears.
type answered struct {
	status     int
	retryAfter string
}

// knock takes a request to a process' door and brings the answer back. said is told what the door answers, in
// the instant in which it does, whether or not the source will hear of it.
func (w *world) knock(p *process, label string, raw []byte, said func(answered)) (answered, error) {
	m := &message{label: label, class: asks}
	v := w.before(p, m)
	visit := func(patience time.Duration) (answered, error) {
		c, err := p.dialed()
		if err != nil {
			return answered{}, err
		}
		defer p.forget(c)
		defer c.pipe.end(io.EOF)
		c.pipe.give(raw)
		a, err := c.pipe.response(patience)
		if err == nil {
			said(a)
		}
		return a, err
	}
	switch v.fault {
	case cutBefore:
		return answered{}, errReset
	case crashBefore:
		p.crash()
		return answered{}, errReset
	case late, crashLate: // the source has given this attempt up when it arrives
		w.running.Go(func() {
			if !w.rest(v.delay) {
				return
			}
			a, err := visit(sdkTimeout)
			w.trace("%s lands late: %s (%d, %v)", p.name, label, a.status, err)
		})
		return answered{}, errReset
	case freezeBefore:
		p.freeze(v.delay)
	}
	a, err := visit(sdkTimeout)
	if err != nil {
		return a, err
	}
	switch v.fault {
	case freezeAfter:
		p.freeze(v.delay)
	case crashAfter:
		p.crash()
		return answered{}, errReset
	}
	w.after(p, m, v)
	if v.fault == cutAfter {
		return answered{}, errReset
	}
	return a, nil
}

// response waits for a whole HTTP answer. A process that is stopped says nothing, whatever it has written.
func (c *pipe) response(patience time.Duration) (answered, error) {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		c.mu.Lock()
		a, whole := parseAnswer(c.out)
		cut, changed := c.cut, c.changed
		c.mu.Unlock()
		frozen := c.p.frozen()
		switch {
		case whole && frozen == nil && c.p.alive():
			return a, nil
		case cut && !whole:
			return answered{}, errReset
		}
		if frozen == nil { // nothing to wait for but what the process writes
			frozen = make(chan struct{})
		}
		select {
		case <-changed:
		case <-frozen:
		case <-late.C:
			return answered{}, errTimedOut
		}
	}
}

var errTimedOut = errors.New("no answer in time")

// parseAnswer reads an HTTP answer; false: it is not complete.
func parseAnswer(b []byte) (answered, bool) {
	if len(b) == 0 {
		return answered{}, false
	}
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		return answered{}, false
	}
	defer r.Body.Close() //nolint:errcheck // in memory
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return answered{}, false
	}
	return answered{status: r.StatusCode, retryAfter: r.Header.Get("Retry-After")}, true
}
