// Package store is the door to Redis: one Redis or Redis Cluster.
//
// It owns: the connection, pipelines, scripts, what is counted of them, and the check that Redis keeps what it acknowledged. It
// guarantees that a command ends with its context, that a script survives a restart of Redis (NOSCRIPT),
// and that an error which will pass (no memory, no disk, a replica, a cluster without a master) says so by its class. It must not know what is stored: slots
// and states are package keyed's, the identity graph is package identity's. No other package imports
// go-redis.
package store

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
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
)

const (
	// dialTimeout is how long a connection may take to open: well above a round trip anywhere, well below
	// a Kafka session time-out.
	dialTimeout = 3 * time.Second
	// ioTimeout bounds one read or write on the wire. A script over a full batch blocks Redis below 0.1 s.
	ioTimeout = 5 * time.Second
)

// Client is a connection pool to Redis. It is safe for concurrent use.
type Client struct {
	rdb             redis.UniversalClient
	log             *zap.Logger
	allowNonDurable bool
}

// Option changes how a client reaches Redis, or what it tells of it.
type Option func(*options)

type options struct {
	redis   *redis.UniversalOptions
	metrics prometheus.Registerer
}

// WithDial makes the client open its connections by dial, which also does TLS then: for networks inside a
// process.
func WithDial(dial func(ctx context.Context, network, address string) (net.Conn, error)) Option {
	return func(o *options) { o.redis.Dialer = dial }
}

// WithPatience bounds one attempt to connect, read or write by limit instead of what suits a Redis next door: for tests, whose
// machine may stand still for longer. A command that was given up is tried again, and a script may then have run twice.
func WithPatience(limit time.Duration) Option {
	return func(o *options) { o.redis.DialTimeout, o.redis.ReadTimeout, o.redis.WriteTimeout = limit, limit, limit }
}

// WithMetrics counts round trips, commands and errors.
func WithMetrics(reg prometheus.Registerer) Option {
	return func(o *options) { o.metrics = reg }
}

// New validates cfg and makes a client. It connects on first use, not here.
func New(cfg config.Redis, log *zap.Logger, opts ...Option) (*Client, error) {
	if len(cfg.Addresses) == 0 {
		return nil, errors.New("redis.addresses: none given")
	}
	opt := &redis.UniversalOptions{
		Addrs:                 cfg.Addresses,
		Username:              cfg.Username,
		Protocol:              2, // replies as flat arrays, the same from every version
		DialTimeout:           dialTimeout,
		ReadTimeout:           ioTimeout,
		WriteTimeout:          ioTimeout,
		ContextTimeoutEnabled: true,
		DisableIdentity:       true, // CLIENT SETINFO is unknown to Redis 7.0 and to stand-ins
		IsClusterMode:         len(cfg.Addresses) > 1,
	}
	if cfg.PasswordFile != "" {
		b, err := os.ReadFile(cfg.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("redis.password_file: %w", err)
		}
		opt.Password = strings.TrimSpace(string(b))
	}
	var err error
	if opt.TLSConfig, err = cfg.TLS.Load(); err != nil {
		return nil, fmt.Errorf("redis.tls: %w", err)
	}
	all := options{redis: opt}
	for _, o := range opts {
		o(&all)
	}
	m, err := newMetrics(all.metrics)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	rdb := redis.NewUniversalClient(opt)
	if c, many := rdb.(*redis.ClusterClient); many {
		c.OnNewNode(func(node *redis.Client) { node.AddHook(m) }) // a pipeline is a round trip to each node it touches
	} else {
		rdb.AddHook(m)
	}
	return &Client{rdb: rdb, log: log, allowNonDurable: cfg.AllowNonDurable}, nil
}

// Close ends all connections. It is idempotent in effect.
func (c *Client) Close() error {
	if err := c.rdb.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
		return fmt.Errorf("close redis: %w", err)
	}
	return nil
}

// Ping asks every node whether it answers.
func (c *Client) Ping(ctx context.Context) error {
	err := c.forEachMaster(ctx, func(ctx context.Context, n *redis.Client) error { return classified(n.Ping(ctx).Err()) })
	if err != nil {
		return fmt.Errorf("ping redis: %w", err)
	}
	return nil
}

// ErrNonDurable means that this Redis may lose a write that it has acknowledged.
var ErrNonDurable = errors.New("redis may lose acknowledged writes: set 'appendonly yes' and 'appendfsync always', or redis.allow_non_durable to try Weft out")

// Check asks whether Redis answers and keeps what it acknowledges (architecture section 4): appendonly
// with appendfsync always on every master. With redis.allow_non_durable it warns instead.
func (c *Client) Check(ctx context.Context) error {
	err := c.forEachMaster(ctx, func(ctx context.Context, n *redis.Client) error {
		for name, want := range map[string]string{"appendonly": "yes", "appendfsync": "always"} {
			if c.allowNonDurable {
				break
			}
			got, err := n.ConfigGet(ctx, name).Result()
			if err != nil && (Class(classified(err)) == ClassOther || redis.HasErrorPrefix(err, "NOPERM")) {
				return fmt.Errorf("%w (CONFIG GET %s: %w)", ErrNonDurable, name, err) // answered, and not with the setting
			}
			if err != nil {
				return fmt.Errorf("config get %s: %w", name, classified(err)) // a matter of reaching it
			}
			if got[name] != want {
				return fmt.Errorf("%w (%s is %q)", ErrNonDurable, name, got[name])
			}
		}
		return classified(n.Ping(ctx).Err())
	})
	if err != nil {
		return fmt.Errorf("check redis: %w", err)
	}
	if c.allowNonDurable {
		c.log.Warn("redis.allow_non_durable is set: a crash of redis may lose acknowledged work")
	}
	return nil
}

func (c *Client) forEachMaster(ctx context.Context, fn func(context.Context, *redis.Client) error) error {
	switch r := c.rdb.(type) {
	case *redis.ClusterClient:
		return r.ForEachMaster(ctx, fn)
	case *redis.Client:
		return fn(ctx, r)
	default:
		return fmt.Errorf("unknown kind of redis client %T", r)
	}
}

// Get returns a key's value, nil if there is none.
func (c *Client) Get(ctx context.Context, key string) ([]byte, error) {
	b, err := c.rdb.Get(ctx, key).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, classified(err))
	}
	return b, nil
}

// scanCount is how many keys Redis looks at per step of Scan: a step takes well below a millisecond.
const scanCount = 1000

// Scan calls see with the keys that match a glob pattern, some at a time; a key may come more than once. Keys
// that come or go meanwhile may be missed. see may be called for several nodes, one after the other.
func (c *Client) Scan(ctx context.Context, pattern string, see func(keys []string) error) error {
	var mu sync.Mutex
	err := c.forEachMaster(ctx, func(ctx context.Context, n *redis.Client) error {
		for cursor := uint64(0); ; {
			keys, next, err := n.Scan(ctx, cursor, pattern, scanCount).Result()
			if err != nil {
				return err
			}
			if len(keys) > 0 {
				mu.Lock()
				err = see(keys)
				mu.Unlock()
				if err != nil {
					return err
				}
			}
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	})
	if err != nil {
		return fmt.Errorf("scan for %s: %w", pattern, err)
	}
	return nil
}

// globSpecial are the characters that Redis' patterns give a meaning to.
const globSpecial = `*?[]^-\`

// Glob is text as a pattern that matches nothing else.
func Glob(text string) string {
	var b strings.Builder
	for _, r := range text {
		if strings.ContainsRune(globSpecial, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// MGet returns the values of keys, nil where there is none, in one pipelined round trip per node.
func (c *Client) MGet(ctx context.Context, keys ...string) ([][]byte, error) {
	p := c.Pipe()
	replies := make([]*Reply, len(keys))
	for i, k := range keys {
		replies[i] = p.Do(ctx, "GET", k)
	}
	if err := p.Exec(ctx); err != nil {
		return nil, fmt.Errorf("get %d keys: %w", len(keys), err)
	}
	out := make([][]byte, len(keys))
	for i, r := range replies {
		out[i] = r.Bytes()
	}
	return out, nil
}

// Set stores a value; ttl 0 keeps it for ever.
func (c *Client) Set(ctx context.Context, key string, val []byte, ttl time.Duration) error {
	if err := c.rdb.Set(ctx, key, val, ttl).Err(); err != nil {
		return fmt.Errorf("set %s: %w", key, classified(err))
	}
	return nil
}

// SetNX stores a value if the key has none and says whether it did. After an error the outcome is
// unknown: read the key again.
func (c *Client) SetNX(ctx context.Context, key string, val []byte, ttl time.Duration) (bool, error) {
	args := redis.SetArgs{Mode: "NX", TTL: ttl}
	err := c.rdb.SetArgs(ctx, key, val, args).Err()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("set %s if absent: %w", key, classified(err))
	}
	return true, nil
}

// Fact writes value into a field that is written once for a deployment's life, and returns what stands
// there: value, or what somebody wrote before.
func (c *Client) Fact(ctx context.Context, key, field, value string) (string, error) {
	if err := c.rdb.HSetNX(ctx, key, field, value).Err(); err != nil {
		return "", fmt.Errorf("write %s of %s: %w", field, key, classified(err))
	}
	got, err := c.rdb.HGet(ctx, key, field).Result()
	if err != nil {
		return "", fmt.Errorf("read %s of %s: %w", field, key, classified(err))
	}
	return got, nil
}

// MGetGroups returns the values of groups of keys, nil where there is none, in one pipelined round trip per node. The
// keys of a group must share a hash slot: they are read at one moment.
func (c *Client) MGetGroups(ctx context.Context, groups [][]string) ([][][]byte, error) {
	p := c.Pipe()
	replies := make([]*Reply, len(groups))
	for i, keys := range groups {
		args := make([]any, 0, 1+len(keys))
		args = append(args, "MGET")
		for _, k := range keys {
			args = append(args, k)
		}
		replies[i] = p.Do(ctx, args...)
	}
	if err := p.Exec(ctx); err != nil {
		return nil, fmt.Errorf("get %d groups of keys: %w", len(groups), err)
	}
	out := make([][][]byte, len(groups))
	for i, r := range replies {
		vs := r.Slice()
		if len(vs) != len(groups[i]) {
			return nil, fmt.Errorf("get %d keys: answer of %d values", len(groups[i]), len(vs))
		}
		out[i] = make([][]byte, len(vs))
		for k, v := range vs {
			out[i][k] = v.Bytes()
		}
	}
	return out, nil
}
