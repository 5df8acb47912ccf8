package simulate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/connector"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/services/activator"
	"github.com/weft-cdp/weft/services/collector"
	stitcher "github.com/weft-cdp/weft/services/identity-stitcher"
	writer "github.com/weft-cdp/weft/services/journey-writer"
	builder "github.com/weft-cdp/weft/services/profile-builder"
)

// The services of a schedule.
const (
	collect  = "collector"
	stitch   = "stitcher"
	build    = "builder"
	activate = "activator"
	write    = "writer"
)

// connection is one that a process has, or that somebody has with it.
type connection interface {
	// lose ends it, for both sides.
	lose()
}

// process is one run of one service: with its own clients, connections and memory.
type process struct {
	w           *world
	service     string
	owner       int // of how many side by side
	incarnation int
	name        string
	safe        bool // nothing befalls it

	mu     sync.Mutex
	links  map[connection]bool
	gate   *gate // where it is called; nil: it is not yet, or never
	disk   *disk // of its spool; nil: it has none
	counts map[string]int
	ended  bool
	thaw   chan struct{} // closed when it goes on; nil: it is not frozen
	cancel context.CancelFunc
}

func (w *world) newProcess(service string, owner, incarnation int) *process {
	return &process{
		w: w, service: service, owner: owner, incarnation: incarnation,
		name:  fmt.Sprintf("%s-%d.%d", service, owner, incarnation),
		links: map[connection]bool{}, counts: map[string]int{}, cancel: func() {},
	}
}

// adopt takes a new connection; false: the process is dead.
func (p *process) adopt(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.links[l] = true
	}
	return !p.ended
}

func (p *process) forget(l connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

func (p *process) alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.ended
}

// nth counts requests with a label.
func (p *process) nth(label string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[label]++
	return strconv.Itoa(p.counts[label])
}

// now is the process' own clock. It is wrong by up to the shape's skew, and put right or wrong once: a collector's
// is never behind, as docs/operate.md asks for; see there what clocks may do.
func (p *process) now() time.Time {
	return time.Now().Add(p.w.skew(p.service, p.owner, p.w.now()))
}

// skew is how far the clock of a service's owner is ahead at an instant.
func (w *world) skew(service string, owner int, at time.Duration) time.Duration {
	most := w.shape.skew
	if most == 0 {
		return 0
	}
	who := fmt.Sprint(service, owner)
	when := "first"
	if at > w.between(0, w.shape.trouble, who, "clock steps") {
		when = "then"
	}
	if service == collect {
		return w.between(0, most, who, when, "clock")
	}
	return w.between(-most, most, who, when, "clock")
}

// crash ends the process as a kill does: from this instant no byte of it goes out and none comes in.
func (p *process) crash() {
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return
	}
	p.ended = true
	links, disk := p.links, p.disk
	p.links = map[connection]bool{}
	if p.thaw != nil {
		close(p.thaw)
		p.thaw = nil
	}
	p.mu.Unlock()
	for l := range links {
		l.lose()
	}
	disk.goesDown()
	p.cancel()
}

// freeze stops the process for a while, as SIGSTOP does.
func (p *process) freeze(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || p.thaw != nil {
		return
	}
	thaw := make(chan struct{})
	p.thaw = thaw
	time.AfterFunc(d, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.thaw == thaw {
			close(thaw)
			p.thaw = nil
			p.w.trace("%s goes on", p.name)
		}
	})
}

// frozen is closed when the process goes on; nil: it is not frozen.
func (p *process) frozen() chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.thaw
}

// hold waits while the process is frozen, and says whether it lives.
func (p *process) hold() bool {
	for {
		c := p.frozen()
		if c == nil {
			return p.alive()
		}
		<-c
	}
}

// errLost is what a call hears whose answer is lost.
var errLost = errors.New("connection reset by peer")

// call is one request to a server that is not reached by bytes.
func (p *process) call(label string, c class, do func() error) error {
	if !p.hold() {
		return errLost
	}
	m := &message{label: label, class: c}
	v := p.w.before(p, m)
	if !p.alive() {
		return errLost
	}
	switch v.fault {
	case cutBefore, refuse:
		return errLost
	case crashBefore:
		p.crash()
		return errLost
	case late, crashLate:
		go func() {
			time.Sleep(v.delay)
			p.w.trace("%s lands late: %s (%v)", p.name, label, do())
		}()
		if v.fault == crashLate {
			p.crash()
		}
		return errLost
	case freezeBefore:
		p.freeze(v.delay)
		if !p.hold() {
			return errLost
		}
	}
	err := do()
	if v.fault == freezeAfter {
		p.freeze(v.delay)
	}
	p.w.after(p, m, v)
	switch v.fault {
	case crashAfter:
		p.crash()
		return errLost
	case cutAfter:
		return errLost
	}
	if !p.hold() {
		return errLost
	}
	return err
}

// clients are a process' connections to the world.
type clients struct {
	stream *stream.Client
	store  *store.Client
}

func (p *process) connect(cfg config.Config) (clients, error) {
	var c clients
	var err error
	c.stream, err = stream.New(cfg.Kafka, zap.NewNop(), stream.WithDial(p.dialKafka))
	if err != nil {
		return c, err
	}
	c.store, err = store.New(cfg.Redis, zap.NewNop(), store.WithDial(p.dialRedis))
	return c, err
}

func (p *process) dialKafka(ctx context.Context, network, address string) (net.Conn, error) {
	server, err := p.w.kafkaNet.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return p.w.dial(p, server, kafkaFraming{})
}

func (p *process) dialRedis(_ context.Context, _, _ string) (net.Conn, error) {
	server, err := p.w.redis.Dial()
	if err != nil {
		return nil, err
	}
	return p.w.dial(p, server, redisFraming{})
}

// runner is a service.
type runner interface{ Run(context.Context) error }

// run runs the service until it ends, and closes what it had.
func (p *process) run(ctx context.Context) error {
	cfg := p.w.config(p)
	c, err := p.connect(cfg)
	if err != nil {
		return err
	}
	defer func() {
		c.stream.Close()
		_ = c.store.Close()
	}()
	s, err := p.make(cfg, c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.mu.Lock()
	p.cancel = cancel
	ended := p.ended
	p.mu.Unlock()
	if ended {
		return nil
	}
	err = s.Run(ctx)
	if !p.alive() {
		return nil // what a dead process says reaches nobody
	}
	return err
}

func (p *process) make(cfg config.Config, c clients) (runner, error) {
	log := p.w.log
	switch p.service {
	case collect:
		deps := collector.Deps{Stream: c.stream, Log: log, Metrics: prometheus.NewRegistry(), Now: p.now, Listen: p.listen}
		if p.w.spools() {
			deps.Store, deps.SpoolFile = c.store, p.insert().create
		}
		return collector.New(cfg, deps)
	case stitch:
		return stitcher.New(cfg, stitcher.Deps{Stream: c.stream, Store: c.store, Log: log, Now: p.now})
	case build:
		var quiet silent
		return builder.New(cfg, builder.Deps{Stream: c.stream, Store: c.store, Log: log, Now: p.now, Listen: quiet.listen})
	case activate:
		return activator.New(cfg, activator.Deps{
			Stream: c.stream, Store: c.store, Log: log, Now: p.now,
			Senders: map[string]connector.Sender{journey.ChannelEmail: &channel{p: p}},
		})
	case write:
		return writer.New(cfg, writer.Deps{Stream: c.stream, Warehouse: p.reach(), Log: log, Now: p.now})
	}
	return nil, fmt.Errorf("no service %q", p.service)
}

// silent is a network on which nobody calls.
type silent struct{}

func (silent) listen(string, string) (net.Listener, error) {
	return &silence{closed: make(chan struct{})}, nil
}

type silence struct {
	once   sync.Once
	closed chan struct{}
}

func (s *silence) Accept() (net.Conn, error) {
	<-s.closed
	return nil, net.ErrClosed
}

func (s *silence) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (s *silence) Addr() net.Addr { return addr("nowhere") }

// channel takes messages and remembers them.
type channel struct{ p *process }

// Idempotent implements connector.Sender.
func (c *channel) Idempotent() bool { return c.p.w.shape.idempotent }

// Send implements connector.Sender.
func (c *channel) Send(_ context.Context, m connector.Message) (connector.Result, error) {
	err := c.p.call("send "+m.To, sends, func() error {
		c.p.w.received(c.p, m)
		return nil
	})
	if err != nil {
		return connector.Result{}, connector.Fail(connector.Unknown, "%w", err)
	}
	return connector.Result{}, nil
}
