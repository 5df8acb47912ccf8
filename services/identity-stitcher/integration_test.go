//go:build integration

package stitcher

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/embedded"
	"github.com/weft-cdp/weft/pkg/store"
)

func TestGraphRedis(t *testing.T) {
	addr := os.Getenv("WEFT_TEST_REDIS")
	require.NotEmpty(t, addr, "WEFT_TEST_REDIS: 'make test' sets it")
	graphOn(t, strings.Split(addr, ","), fmt.Sprintf("t%d.", time.Now().UnixNano()))
}

func TestGraphRedisCluster(t *testing.T) {
	nodes, err := embedded.StartRedisCluster(t.Context(), t.TempDir())
	require.NoError(t, err)
	defer func() { require.NoError(t, nodes.Close()) }()
	graphOn(t, nodes.Addresses(), "t.")
}

func graphOn(t *testing.T, addrs []string, prefix string) {
	st, err := store.New(config.Redis{Addresses: addrs}, zap.NewNop())
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	conformGraph(t, st, prefix)
	conformPages(t, st, "pages."+prefix)
}
