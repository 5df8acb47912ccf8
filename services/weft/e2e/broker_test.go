//go:build integration

package e2e

import (
	"context"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/embedded"
)

// brokerLimit bounds the start of a broker that was killed, and the end of one.
const brokerLimit = 3 * time.Minute

// broker is an Apache Kafka of a test's own, which may be killed: the shared one is others' too.
type broker struct {
	t       *testing.T
	dir     string
	address string // the same after a restart
	parts   *embedded.Parts
	pid     int
}

// startBroker starts one that ends with the test.
func startBroker(t *testing.T) *broker {
	t.Helper()
	fetch := exec.CommandContext(t.Context(), filepath.Join("scripts", "fetch-kafka"))
	fetch.Dir = root
	out, err := fetch.CombinedOutput()
	require.NoError(t, err, "%s", out)
	b := &broker{t: t, dir: t.TempDir()}
	b.start()
	t.Cleanup(b.stop)
	return b
}

// start starts it, again on its data if it was killed.
func (b *broker) start() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), brokerLimit)
	defer cancel()
	parts, err := embedded.Start(ctx, embedded.Options{DataDir: b.dir, Log: zap.NewNop(), Self: []string{weft}, Kafka: true, RealKafka: true})
	require.NoError(b.t, err)
	b.parts = parts
	if b.address != "" {
		require.Equal(b.t, b.address, parts.KafkaAddr, "somebody has taken its port")
	}
	b.address = parts.KafkaAddr
	pid, ok := listener(b.t, b.address)
	require.True(b.t, ok, "who listens on %s", b.address)
	b.pid = pid
}

// kill ends it with SIGKILL and returns when it is gone.
func (b *broker) kill() {
	b.t.Helper()
	require.NoError(b.t, syscall.Kill(b.pid, syscall.SIGKILL))
	ctx, cancel := context.WithTimeout(b.t.Context(), brokerLimit)
	defer cancel()
	require.ErrorContains(b.t, b.parts.Run(ctx), "Apache Kafka ended by itself")
	b.stop()
}

func (b *broker) stop() {
	if b.parts == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), brokerLimit)
	defer cancel()
	if err := b.parts.Close(ctx); err != nil {
		b.t.Error(err)
	}
	b.parts = nil
}
