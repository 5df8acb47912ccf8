//go:build integration

package stitcher

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/store"
)

func TestGraphRedis(t *testing.T) {
	addr := os.Getenv("WEFT_TEST_REDIS")
	require.NotEmpty(t, addr, "WEFT_TEST_REDIS: 'make test' sets it")
	st, err := store.New(config.Redis{Addresses: []string{addr}}, zap.NewNop())
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	conformGraph(t, st, fmt.Sprintf("t%d.", time.Now().UnixNano()))
}
