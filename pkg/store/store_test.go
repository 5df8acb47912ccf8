package store_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/store"
)

func TestMain(m *testing.M) {
	// A pool whose server is gone looks every second whether it came back, and notices its own end only then.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

func open(t *testing.T, cfg config.Redis) *store.Client {
	t.Helper()
	c, err := store.New(cfg, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// conform is what every Redis must do; the integration ring runs it against the real one.
func conform(t *testing.T, c *store.Client, prefix string) {
	t.Helper()
	ctx := context.Background()
	k := func(s string) string { return prefix + s }
	require.NoError(t, c.Ping(ctx))

	b, err := c.Get(ctx, k("none"))
	require.NoError(t, err)
	require.Nil(t, b)
	require.NoError(t, c.Set(ctx, k("a"), []byte("1"), 0))
	got, err := c.MGet(ctx, k("a"), k("none"), k("a"))
	require.NoError(t, err)
	require.Equal(t, [][]byte{[]byte("1"), nil, []byte("1")}, got)

	ok, err := c.SetNX(ctx, k("nx"), []byte("1"), time.Hour)
	require.NoError(t, err)
	require.True(t, ok)
	ok, err = c.SetNX(ctx, k("nx"), []byte("2"), time.Hour)
	require.NoError(t, err)
	require.False(t, ok)

	v, err := c.Fact(ctx, k("facts"), "partitions", "12")
	require.NoError(t, err)
	require.Equal(t, "12", v)
	v, err = c.Fact(ctx, k("facts"), "partitions", "24")
	require.NoError(t, err)
	require.Equal(t, "12", v, "what was written first stands")

	ok, err = c.CompareAndSet(ctx, k("cas"), nil, []byte("r1"))
	require.NoError(t, err)
	require.True(t, ok)
	ok, err = c.CompareAndSet(ctx, k("cas"), nil, []byte("r1"))
	require.NoError(t, err)
	require.True(t, ok, "a retry whose first copy has landed")
	ok, err = c.CompareAndSet(ctx, k("cas"), nil, []byte("r2"))
	require.NoError(t, err)
	require.False(t, ok)
	ok, err = c.CompareAndSet(ctx, k("cas"), []byte("r1"), []byte("r2"))
	require.NoError(t, err)
	require.True(t, ok)
	ok, err = c.CompareAndSet(ctx, k("cas"), []byte("r1"), []byte("r3"))
	require.NoError(t, err)
	require.False(t, ok)

	var wins atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			ok, err := c.CompareAndSet(ctx, k("cas"), []byte("r2"), fmt.Appendf(nil, "w%d", i))
			if err == nil && ok {
				wins.Add(1)
			}
		})
	}
	wg.Wait()
	require.Equal(t, int64(1), wins.Load())

	p := c.Pipe()
	r1 := p.Do(ctx, "RPUSH", k("{l}list"), "x", "y")
	r2 := p.Do(ctx, "LRANGE", k("{l}list"), 0, -1)
	r3 := p.Do(ctx, "GET", k("none"))
	require.NoError(t, p.Exec(ctx))
	require.Equal(t, int64(2), r1.Int())
	require.Len(t, r2.Slice(), 2)
	require.Nil(t, r3.Bytes())
}

func TestConformMiniredis(t *testing.T) {
	r := miniredis.RunT(t)
	conform(t, open(t, config.Redis{Addresses: []string{r.Addr()}}), "t:")
}

func TestCheckRefusesARedisThatMayLoseWrites(t *testing.T) {
	r := miniredis.RunT(t) // knows no CONFIG GET: can not prove that it is durable
	require.ErrorIs(t, open(t, config.Redis{Addresses: []string{r.Addr()}}).Check(context.Background()), store.ErrNonDurable)
	require.NoError(t, open(t, config.Redis{Addresses: []string{r.Addr()}, AllowNonDurable: true}).Check(context.Background()))
}

func TestContextEndsACommand(t *testing.T) {
	r := miniredis.RunT(t)
	c := open(t, config.Redis{Addresses: []string{r.Addr()}})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := c.Get(ctx, "a")
	require.ErrorIs(t, err, context.Canceled)
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	_, err := store.New(config.Redis{}, zap.NewNop())
	require.ErrorContains(t, err, "redis.addresses")
	_, err = store.New(config.Redis{Addresses: []string{"x:1"}, PasswordFile: "/does/not/exist"}, zap.NewNop())
	require.ErrorContains(t, err, "redis.password_file")
}
