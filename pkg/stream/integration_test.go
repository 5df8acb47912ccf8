//go:build integration

package stream

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestConformanceKafka runs against a real Apache Kafka, whose host:port is in WEFT_TEST_KAFKA.
func TestConformanceKafka(t *testing.T) {
	addr := os.Getenv("WEFT_TEST_KAFKA")
	require.NotEmpty(t, addr, "WEFT_TEST_KAFKA must hold host:port of an Apache Kafka")
	conformance(t, []string{addr})
}

// TestStaticRestartKafka: a planned restart of a static member is no rebalance. kfake makes one (see restartStatic),
// so this is for Apache Kafka alone.
func TestStaticRestartKafka(t *testing.T) {
	addr := os.Getenv("WEFT_TEST_KAFKA")
	require.NotEmpty(t, addr, "WEFT_TEST_KAFKA must hold host:port of an Apache Kafka")
	before, after := restartStatic(t, []string{addr})
	require.Equal(t, before, after, "generation")
}
