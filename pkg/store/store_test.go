package store_test

import (
	"context"
	"testing"

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
