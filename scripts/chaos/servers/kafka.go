package servers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/weft-cdp/weft/pkg/embedded"
)

// Brokers is how many there are: one may be lost, and min.insync.replicas 2 still holds.
const Brokers = 3

// brokerJVM keeps a broker small; serial collection and the first compiler make it start soon.
var brokerJVM = []string{"-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}

// brokerProperties is one of three nodes that are broker and controller. Two listeners: DIRECT for each other and
// for the harness, PROXIED, whose advertised address is that of a proxy, for Weft. Time-outs are short, so that a
// run of minutes sees many elections and many sessions expire.
const brokerProperties = `process.roles=broker,controller
node.id=%[1]d
controller.quorum.voters=%[2]s
listeners=DIRECT://%[3]s,PROXIED://%[4]s,CONTROLLER://%[5]s
advertised.listeners=DIRECT://%[3]s,PROXIED://%[6]s
listener.security.protocol.map=DIRECT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=DIRECT
log.dirs=%[7]s
auto.create.topics.enable=false
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
offsets.topic.num.partitions=6
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=3
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000
controller.quorum.election.timeout.ms=1000
controller.quorum.fetch.timeout.ms=2000
replica.lag.time.max.ms=6000
num.network.threads=2
num.io.threads=4
background.threads=2
num.recovery.threads.per.data.dir=2
log.cleaner.dedupe.buffer.size=8388608
`

// broker is where one listens.
type broker struct{ direct, proxied, controller, proxy string }

// kafka prepares the brokers' processes. It formats their storage unless that was done.
func (d *Deployment) kafka(ctx context.Context) error {
	cache, err := os.UserCacheDir()
	if err != nil {
		return fmt.Errorf("find the cache: %w", err)
	}
	lib := filepath.Join(cache, "weft", "kafka", embedded.KafkaVersion, "lib")
	if _, err := os.Stat(lib); err != nil {
		return fmt.Errorf("start Apache Kafka: %w: run scripts/fetch-kafka", err)
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return fmt.Errorf("start Apache Kafka: %w (Debian: apt-get install openjdk-17-jre-headless)", err)
	}
	nodes := make([]broker, Brokers)
	voters := make([]string, Brokers)
	for i := range nodes {
		b := &nodes[i]
		name := fmt.Sprintf("kafka-%d", i+1)
		b.direct, b.proxied, b.controller = d.address(name), d.address(name+"-proxied"), d.address(name+"-controller")
		link, err := d.link(name, b.proxied)
		if err != nil {
			return err
		}
		b.proxy = link.Address
		d.KafkaLinks = append(d.KafkaLinks, link)
		d.KafkaDirect = append(d.KafkaDirect, b.direct)
		voters[i] = fmt.Sprintf("%d@%s", i+1, b.controller)
	}
	cluster, err := d.clusterID()
	if err != nil {
		return err
	}
	for i, b := range nodes {
		name := fmt.Sprintf("kafka-%d", i+1)
		dir := filepath.Join(d.Dir, "data", name)
		logs := filepath.Join(dir, "logs")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("prepare %s: %w", name, err)
		}
		file := filepath.Join(dir, "server.properties")
		text := fmt.Sprintf(brokerProperties, i+1, strings.Join(voters, ","), b.direct, b.proxied, b.controller, b.proxy, logs)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return fmt.Errorf("prepare %s: %w", name, err)
		}
		classes := filepath.Join(lib, "*")
		if err := format(ctx, java, classes, file, logs, cluster); err != nil {
			return err
		}
		argv := append([]string{java}, brokerJVM...)
		d.Kafka = append(d.Kafka, &Process{
			Name: name, argv: append(argv, "-cp", classes, "kafka.Kafka", file), env: os.Environ(),
			log: filepath.Join(d.Dir, "logs", name+".log"), ready: func(ctx context.Context) error { return dials(ctx, b.direct) },
		})
	}
	return nil
}

// clusterID is one UUID for all nodes, kept with their data.
func (d *Deployment) clusterID() (string, error) {
	file := filepath.Join(d.Dir, "data", "cluster-id")
	text, err := os.ReadFile(file) //nolint:gosec // our own directory
	if err == nil {
		return string(text), nil
	}
	cluster := embedded.KafkaClusterID()
	if err := os.WriteFile(file, []byte(cluster), 0o600); err != nil {
		return "", fmt.Errorf("prepare Apache Kafka: %w", err)
	}
	return cluster, nil
}

// format prepares a node's storage, once.
func format(ctx context.Context, java, classes, properties, logs, cluster string) error {
	if _, err := os.Stat(filepath.Join(logs, "meta.properties")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	//nolint:gosec // Java, and paths of our own
	cmd := exec.CommandContext(ctx, java, "-XX:TieredStopAtLevel=1", "-cp", classes, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", properties)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("format Kafka's storage: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
