package embedded

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
)

// KafkaVersion is the version of Apache Kafka that scripts/fetch-kafka fetches.
const KafkaVersion = "4.1.1"

// kafkaHeap keeps a broker for tests small: 360 MB resident.
const kafkaHeap = "-Xmx512m"

// kafkaProperties is one node that is broker and controller. Its internal topics have one replica and few partitions.
const kafkaProperties = `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%[2]s
listeners=PLAINTEXT://%[1]s,CONTROLLER://%[2]s
advertised.listeners=PLAINTEXT://%[1]s
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=%[3]s
num.partitions=1
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=10
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=5
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
`

// startRealKafka runs Apache Kafka (KRaft) from the jars that scripts/fetch-kafka has fetched.
func (p *Parts) startRealKafka(ctx context.Context, dir string, ports *ports) error {
	lib, err := cacheDir("kafka", KafkaVersion, "lib")
	if err != nil {
		return err
	}
	if _, err := os.Stat(lib); err != nil {
		return fmt.Errorf("start Apache Kafka: %w: run scripts/fetch-kafka", err)
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return fmt.Errorf("start Apache Kafka: %w (Debian: apt-get install openjdk-17-jre-headless)", err)
	}
	classes := filepath.Join(lib, "*")
	properties := filepath.Join(dir, "server.properties")
	logs := filepath.Join(dir, "logs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("start Apache Kafka: %w", err)
	}
	return p.run(ctx, func() (command, error) {
		broker, errBroker := ports.pick("apache-kafka")
		controller, errController := ports.pick("apache-kafka-controller")
		if err := errors.Join(errBroker, errController); err != nil {
			return command{}, err
		}
		p.KafkaAddr = loopback(broker)
		text := fmt.Sprintf(kafkaProperties, p.KafkaAddr, loopback(controller), logs)
		if err := os.WriteFile(properties, []byte(text), 0o600); err != nil {
			return command{}, fmt.Errorf("start Apache Kafka: %w", err)
		}
		if err := formatKafka(ctx, java, classes, properties, logs); err != nil {
			return command{}, err
		}
		return command{
			name:  "Apache Kafka",
			argv:  []string{java, kafkaHeap, "-cp", classes, "kafka.Kafka", properties},
			log:   filepath.Join(dir, "kafka.log"),
			ready: func(ctx context.Context) error { return pingKafka(ctx, p.KafkaAddr) },
		}, nil
	})
}

// KafkaClusterID makes an id for a new cluster, in Kafka's form of a UUID. It never begins with a dash, which one in
// 64 would: the tool that formats the storage takes that for an option.
func KafkaClusterID() string {
	id := uuid.New()
	id[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// formatKafka prepares the storage, once.
func formatKafka(ctx context.Context, java, classes, properties, logs string) error {
	if _, err := os.Stat(filepath.Join(logs, "meta.properties")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	//nolint:gosec // Java, and paths of our own
	cmd := exec.CommandContext(ctx, java, "-cp", classes, "kafka.tools.StorageTool", "format", "-t", KafkaClusterID(), "-c", properties)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("format Kafka's storage: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// pingKafka fails until the broker answers an ApiVersions request (key 18, version 0, without a client id).
func pingKafka(ctx context.Context, address string) error {
	const correlation = 7
	var request bytes.Buffer
	for _, v := range []any{int32(10), int16(18), int16(0), int32(correlation), int16(-1)} { // size, key, version, id, null
		_ = binary.Write(&request, binary.BigEndian, v) // a buffer takes everything
	}
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is pending
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := conn.Write(request.Bytes()); err != nil {
		return err
	}
	var answer struct {
		Size, Correlation int32
		Error             int16
	}
	if err := binary.Read(io.LimitReader(conn, 10), binary.BigEndian, &answer); err != nil {
		return err
	}
	if answer.Correlation != correlation || answer.Error != 0 {
		return fmt.Errorf("ApiVersions was answered with error %d", answer.Error)
	}
	return nil
}
