package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"
)

// startKafka runs kfake in this process. As Kafka itself by default, it leaves it to the system when data is
// written to disk: what it acknowledged survives the end of the process in any way, but not that of the machine.
func (p *Parts) startKafka(dir string, ports *ports) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("start Kafka: %w", err)
	}
	var err error
	for range startTries {
		var port int
		if port, err = ports.pick("kafka"); err != nil {
			return err
		}
		var cluster *kfake.Cluster
		cluster, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(dir), kfake.WithLogger(kafkaLog{p.log.Sugar()}))
		if err == nil {
			p.KafkaAddr = cluster.ListenAddrs()[0]
			p.onClose(func(context.Context) error { cluster.Close(); return nil })
			p.log.Info("started", zap.String("part", "kfake"), zap.String("data", dir))
			return nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return fmt.Errorf("start Kafka: %w", err)
}

// kafkaLog hands kfake's lines on. They are all for whoever looks for a fault in kfake, even its warnings are about
// clients.
type kafkaLog struct{ log *zap.SugaredLogger }

func (l kafkaLog) Logf(level kfake.LogLevel, format string, args ...any) {
	if level == kfake.LogLevelError {
		l.log.Warnf("kfake: "+format, args...)
		return
	}
	l.log.Debugf("kfake: "+format, args...)
}
