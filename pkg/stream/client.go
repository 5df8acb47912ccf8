package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
)

const (
	// requestTimeout bounds every request that the broker answers at once.
	requestTimeout = 10 * time.Second
	// dialTimeout bounds a connection attempt, TLS and SASL included.
	dialTimeout = 5 * time.Second
	// metadataTTL is how old the view of the cluster may become when nothing fails; on failures it is read
	// anew at once. kafka-go reads it for all topics, at random times within this span.
	metadataTTL = 20 * time.Second
	// refreshEvery keeps many partitions that fail together from reading the metadata once each.
	refreshEvery = 100 * time.Millisecond
)

// Client is a connection to one Kafka cluster. It is safe for concurrent use. Close ends it.
type Client struct {
	cfg       config.Kafka
	log       *zap.Logger
	addr      net.Addr
	transport *kafka.Transport
	conns     *connections
	base      context.Context // ends with the client
	cancel    context.CancelFunc
	pulls     pulls

	topicPatience time.Duration // the constants, shorter in tests
	watchEvery    time.Duration
	groups        *groupMetrics
	wire          *wireMetrics

	refreshing chan struct{} // holds a token while nobody renews the view of the cluster
	refreshed  time.Time     // for who has the token

	lanesMu sync.Mutex
	lanes   map[laneName]*lane

	coordMu      sync.Mutex
	coordinators map[string]int32 // group to broker id

	encoders      sync.Pool // *encoder
	compressAbove int       // the constant, another in benchmarks
}

// Option changes how a client reaches Kafka.
type Option func(*options)

type options struct {
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	metrics prometheus.Registerer
}

// WithDial makes the client open its connections by dial, below TLS: for networks inside a process.
func WithDial(dial func(ctx context.Context, network, address string) (net.Conn, error)) Option {
	return func(o *options) { o.dial = dial }
}

// WithMetrics registers the client's metrics. Without it nobody sees them.
func WithMetrics(reg prometheus.Registerer) Option {
	return func(o *options) { o.metrics = reg }
}

// New checks cfg and reads its secrets; it connects to nothing.
func New(cfg config.Kafka, log *zap.Logger, opts ...Option) (*Client, error) {
	o := options{dial: (&net.Dialer{}).DialContext}
	for _, opt := range opts {
		opt(&o)
	}
	if len(cfg.Brokers) == 0 {
		return nil, errors.New("kafka.brokers: at least one is needed")
	}
	tlsConfig, err := cfg.TLS.Load()
	if err != nil {
		return nil, fmt.Errorf("kafka.tls: %w", err)
	}
	mechanism, err := loadSASL(cfg.SASL)
	if err != nil {
		return nil, fmt.Errorf("kafka.sasl: %w", err)
	}
	groups, err := newGroupMetrics(o.metrics)
	if err != nil {
		return nil, err
	}
	wire, err := newWireMetrics(o.metrics)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	conns := &connections{under: o.dial, open: make(map[*trackedConn]struct{})}
	refreshing := make(chan struct{}, 1)
	refreshing <- struct{}{}
	return &Client{
		refreshing: refreshing,

		cfg:  cfg,
		log:  log,
		addr: kafka.TCP(cfg.Brokers...),
		transport: &kafka.Transport{
			Dial: conns.dial, DialTimeout: dialTimeout, MetadataTTL: metadataTTL,
			ClientID: cfg.ClientID, TLS: tlsConfig, SASL: mechanism, Context: ctx,
		},
		conns:         conns,
		base:          ctx,
		cancel:        cancel,
		pulls:         pulls{brokers: make(map[int32]*puller)},
		topicPatience: topicPatience,
		watchEvery:    watchEvery,
		groups:        groups,
		wire:          wire,
		compressAbove: compressAbove,
		lanes:         make(map[laneName]*lane),
		coordinators:  make(map[string]int32),
	}, nil
}

// Close ends all requests and connections. It may be called more than once. RunGroup, Batcher.Run and
// Fetch should have returned before: they would only fail from here on.
func (c *Client) Close() {
	c.cancel()
	c.transport.CloseIdleConnections()
	c.conns.closeAll()
}

// Ping returns nil if a broker answers.
func (c *Client) Ping(ctx context.Context) error {
	if _, err := c.metadata(ctx, nil); err != nil {
		return fmt.Errorf("ping kafka at %s: %w", strings.Join(c.cfg.Brokers, ","), err)
	}
	return nil
}

// do sends one request and returns the answer's body. route nil: any broker.
func (c *Client) do(ctx context.Context, timeout time.Duration, key protocol.ApiKey, version int16, body []byte,
	route func(protocol.Cluster) (protocol.Broker, error),
) (*reader, error) {
	w := writer{b: make([]byte, 0, 16+len(c.cfg.ClientID)+len(body))}
	w.head(key, version, c.cfg.ClientID)
	w.b = append(w.b, body...)
	seal(w.b)
	return c.send(ctx, timeout, &exchange{key: key, version: version, frame: w.b, route: route})
}

// send is do for a whole request.
func (c *Client) send(ctx context.Context, timeout time.Duration, e *exchange) (*reader, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	e.metrics = c.wire.of(e.key)
	m, err := c.transport.RoundTrip(ctx, c.addr, e)
	e.metrics.done(err)
	if err != nil {
		return nil, err
	}
	a, ok := m.(*answer)
	if !ok {
		return nil, fmt.Errorf("%s: %w", e.key, errMalformed)
	}
	return &reader{b: a.body}, nil
}

// toLeader routes to the leader of a partition.
func toLeader(topicName string, partition int32) func(protocol.Cluster) (protocol.Broker, error) {
	return func(cluster protocol.Cluster) (protocol.Broker, error) {
		t, ok := cluster.Topics[topicName]
		if !ok {
			return protocol.Broker{ID: -1}, protocol.NewErrNoTopic(topicName)
		}
		p, ok := t.Partitions[partition]
		if !ok {
			return protocol.Broker{ID: -1}, protocol.NewErrNoPartition(topicName, partition)
		}
		b, ok := cluster.Brokers[p.Leader]
		if !ok {
			return protocol.Broker{ID: -1}, protocol.NewErrNoLeader(topicName, partition)
		}
		return b, nil
	}
}

// toBroker routes to a broker by its id.
func toBroker(id int32) func(protocol.Cluster) (protocol.Broker, error) {
	return func(protocol.Cluster) (protocol.Broker, error) { return protocol.Broker{ID: id}, nil }
}

// refreshMessage makes kafka-go's transport read the cluster's metadata anew. The transport does so after
// every answer to CreateTopics; this one is answered on the spot, and nothing goes over the wire.
type refreshMessage struct{}

func (refreshMessage) ApiKey() protocol.ApiKey                 { return protocol.CreateTopics } //nolint:revive // kafka-go's spelling
func (refreshMessage) Required(map[protocol.ApiKey]int16) bool { return true }

// refresh has the transport's view of the cluster renewed; it gives up quietly, the next failure asks again.
func (c *Client) refresh(ctx context.Context) {
	select {
	case <-c.refreshing:
		defer func() { c.refreshing <- struct{}{} }()
	case <-ctx.Done():
		return
	}
	if time.Since(c.refreshed) < refreshEvery || ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if _, err := c.transport.RoundTrip(ctx, c.addr, refreshMessage{}); err != nil {
		c.log.Debug("kafka metadata not renewed", zap.Error(err))
	}
	c.refreshed = time.Now()
}

func loadSASL(cfg config.SASL) (sasl.Mechanism, error) {
	if cfg.Mechanism == "" {
		return nil, nil //nolint:nilnil // no log-in is not an error
	}
	var password string
	if cfg.PasswordFile != "" {
		b, err := os.ReadFile(cfg.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("read password_file: %w", err)
		}
		password = strings.TrimRight(string(b), "\r\n")
	}
	switch cfg.Mechanism {
	case "plain":
		return plain.Mechanism{Username: cfg.Username, Password: password}, nil
	case "scram-sha-256":
		return scram.Mechanism(scram.SHA256, cfg.Username, password)
	case "scram-sha-512":
		return scram.Mechanism(scram.SHA512, cfg.Username, password)
	}
	return nil, fmt.Errorf("mechanism %q: plain, scram-sha-256 or scram-sha-512", cfg.Mechanism)
}

// connections are the sockets that are open, so that Close can end requests that wait on them.
type connections struct {
	under func(ctx context.Context, network, address string) (net.Conn, error)

	mu     sync.Mutex
	open   map[*trackedConn]struct{}
	closed bool
}

type trackedConn struct {
	net.Conn
	of *connections
}

// Close closes the socket and forgets it.
func (t *trackedConn) Close() error {
	t.of.mu.Lock()
	delete(t.of.open, t)
	t.of.mu.Unlock()
	return t.Conn.Close()
}

func (c *connections) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.under(ctx, network, address)
	if err != nil {
		return nil, err
	}
	t := &trackedConn{Conn: conn, of: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.Join(ErrClosed, conn.Close())
	}
	c.open[t] = struct{}{}
	return t, nil
}

func (c *connections) closeAll() {
	c.mu.Lock()
	c.closed = true
	open := make([]*trackedConn, 0, len(c.open))
	for t := range c.open {
		open = append(open, t)
	}
	c.mu.Unlock()
	for _, t := range open {
		_ = t.Close() // whoever used it sees the error
	}
}
