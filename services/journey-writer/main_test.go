package writer

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"
)

// brokerEnv makes the test binary a broker, for benchmarks.
const brokerEnv = "WEFT_TEST_BROKER"

func TestMain(m *testing.M) {
	if os.Getenv(brokerEnv) != "" {
		serveWriterBroker()
		return
	}
	goleak.VerifyTestMain(m)
}

// serveWriterBroker is another process, so that its CPU does not count: a broker until its input ends.
func serveWriterBroker() {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		panic(err)
	}
	defer cluster.Close()
	fmt.Println(strings.Join(cluster.ListenAddrs(), ","))
	_, _ = io.Copy(io.Discard, os.Stdin)
}
