//go:build integration

package store_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
)

func TestConformRedis(t *testing.T) {
	addr := os.Getenv("WEFT_TEST_REDIS")
	require.NotEmpty(t, addr, "WEFT_TEST_REDIS: 'make test' sets it")
	c := open(t, config.Redis{Addresses: []string{addr}})
	require.NoError(t, c.Check(context.Background()), "the tests' redis is durable")
	conform(t, c, fmt.Sprintf("t%d:", time.Now().UnixNano()))
}
