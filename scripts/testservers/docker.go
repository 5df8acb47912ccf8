package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/testcontainers/testcontainers-go"
	tclog "github.com/testcontainers/testcontainers-go/log"
	"github.com/testcontainers/testcontainers-go/wait"

	"github.com/weft-cdp/weft/schemas/clickhouse"
)

// The images, as in docker-compose.yml.
const (
	imageKafka      = "apache/kafka:4.1.1"
	imageRedis      = "redis:8"
	imageClickHouse = "clickhouse/clickhouse-server:25.8"
)

const (
	// dockerProbe bounds the question whether there is a Docker engine.
	dockerProbe = 5 * time.Second
	// containerLimit bounds a container's start, its image being there.
	containerLimit = time.Minute
	// dockerLimit bounds all of it, pulling images included.
	dockerLimit = 10 * time.Minute

	portKafka          = "9092/tcp"
	portRedis          = "6379/tcp"
	portClickHouse     = "9000/tcp"
	portClickHouseHTTP = "8123/tcp"
)

// startDocker starts the three as containers; Ryuk removes them also where this process is killed.
func startDocker(ctx context.Context) (servers, error) {
	tclog.SetDefault(tclog.NewNoopLogger())
	if err := dockerAnswers(ctx); err != nil {
		return servers{}, err
	}
	limited, cancel := context.WithTimeout(ctx, dockerLimit)
	defer cancel()
	var containers []testcontainers.Container
	stop := func(ctx context.Context) error {
		var errs []error
		for _, c := range containers {
			errs = append(errs, testcontainers.TerminateContainer(c, testcontainers.StopContext(ctx)))
		}
		return errors.Join(errs...)
	}
	s := servers{kind: "Docker (" + imageKafka + ", " + imageRedis + ", " + imageClickHouse + ")", stop: stop}
	addresses := map[string]*string{
		portKafka: &s.kafka, portRedis: &s.redis, portClickHouse: &s.clickHouse, portClickHouseHTTP: &s.clickHouseHTTP,
	}
	for _, run := range []func(context.Context) (*testcontainers.DockerContainer, []string, error){runKafka, runRedis, runClickHouse} {
		c, ports, err := run(limited)
		if c != nil {
			containers = append(containers, c)
		}
		for i := 0; err == nil && i < len(ports); i++ {
			*addresses[ports[i]], err = c.PortEndpoint(limited, ports[i], "")
		}
		if err != nil {
			return servers{}, errors.Join(err, stop(context.WithoutCancel(ctx)))
		}
	}
	return s, nil
}

// dockerAnswers asks the engine, without waiting for long.
func dockerAnswers(ctx context.Context) (err error) {
	defer func() { // the library panics where it finds no engine at all
		if r := recover(); r != nil {
			err = fmt.Errorf("no engine: %v", r)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, dockerProbe)
	defer cancel()
	p, err := testcontainers.NewDockerProvider(testcontainers.WithLogger(tclog.NewNoopLogger()))
	if err != nil {
		return fmt.Errorf("no engine: %w", err)
	}
	defer p.Close() //nolint:errcheck // nothing is pending
	if err := p.Health(ctx); err != nil {
		return fmt.Errorf("no engine: %w", err)
	}
	return nil
}

// started waits until the ports listen.
func started(ports ...string) testcontainers.CustomizeRequestOption {
	var all []wait.Strategy
	for _, p := range ports {
		all = append(all, wait.ForListeningPort(p))
	}
	return testcontainers.WithWaitStrategyAndDeadline(containerLimit, all...)
}

func runRedis(ctx context.Context) (*testcontainers.DockerContainer, []string, error) {
	c, err := testcontainers.Run(ctx, imageRedis,
		testcontainers.WithExposedPorts(portRedis),
		testcontainers.WithCmd("redis-server", "--appendonly", "yes", "--appendfsync", "always", "--save", ""),
		started(portRedis))
	if err != nil {
		return c, nil, fmt.Errorf("run %s: %w", imageRedis, err)
	}
	return c, []string{portRedis}, nil
}

// analystFromOutside lets the analyst in through the published port, which is not loopback inside the container.
const analystFromOutside = `<clickhouse><users><analyst><networks replace="1"><ip>::/0</ip></networks></analyst></users></clickhouse>`

func runClickHouse(ctx context.Context) (*testcontainers.DockerContainer, []string, error) {
	c, err := testcontainers.Run(ctx, imageClickHouse,
		testcontainers.WithExposedPorts(portClickHouse, portClickHouseHTTP),
		// The user default, without a password, from everywhere: as users.xml has it before the image's own set-up.
		testcontainers.WithEnv(map[string]string{"CLICKHOUSE_SKIP_USER_SETUP": "1"}),
		testcontainers.WithFiles(
			file("/etc/clickhouse-server/users.d/weft-analyst.xml", clickhouse.AnalystUser),
			file("/etc/clickhouse-server/users.d/zz-analyst.xml", []byte(analystFromOutside))),
		started(portClickHouse, portClickHouseHTTP))
	if err != nil {
		return c, nil, fmt.Errorf("run %s: %w", imageClickHouse, err)
	}
	return c, []string{portClickHouse, portClickHouseHTTP}, nil
}

// kafkaStart is written into the container once its port is known, because clients are told the address.
const kafkaStart = "/tmp/weft-start.sh"

func runKafka(ctx context.Context) (*testcontainers.DockerContainer, []string, error) {
	c, err := testcontainers.Run(ctx, imageKafka,
		testcontainers.WithExposedPorts(portKafka),
		testcontainers.WithEnv(map[string]string{
			"KAFKA_NODE_ID":                                          "1",
			"KAFKA_PROCESS_ROLES":                                    "broker,controller",
			"KAFKA_CONTROLLER_QUORUM_VOTERS":                         "1@localhost:9093",
			"KAFKA_LISTENERS":                                        "PLAINTEXT://0.0.0.0:9092,BROKER://localhost:9094,CONTROLLER://localhost:9093",
			"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP":                   "PLAINTEXT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
			"KAFKA_CONTROLLER_LISTENER_NAMES":                        "CONTROLLER",
			"KAFKA_INTER_BROKER_LISTENER_NAME":                       "BROKER",
			"KAFKA_AUTO_CREATE_TOPICS_ENABLE":                        "false",
			"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR":                 "1",
			"KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR":         "1",
			"KAFKA_TRANSACTION_STATE_LOG_MIN_ISR":                    "1",
			"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
			"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR":            "1",
			"KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS":                     "10",
			"KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS":             "5",
			"KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS":                 "0",
		}),
		testcontainers.WithEntrypoint("sh", "-c", "while [ ! -f "+kafkaStart+" ]; do sleep 0.1; done; exec bash "+kafkaStart),
		testcontainers.WithAdditionalLifecycleHooks(testcontainers.ContainerLifecycleHooks{
			PostStarts: []testcontainers.ContainerHook{tellKafkaItsAddress},
		}),
		testcontainers.WithWaitStrategyAndDeadline(containerLimit, wait.ForLog("Kafka Server started"), wait.ForListeningPort(portKafka)))
	if err != nil {
		return c, nil, fmt.Errorf("run %s: %w", imageKafka, err)
	}
	return c, []string{portKafka}, nil
}

func tellKafkaItsAddress(ctx context.Context, c testcontainers.Container) error {
	host, err := c.Host(ctx)
	if err != nil {
		return err
	}
	port, err := c.MappedPort(ctx, portKafka)
	if err != nil {
		return err
	}
	// The broker talks to itself too, for transactions, and cannot reach the published port.
	listeners := "PLAINTEXT://" + net.JoinHostPort(host, port.Port()) + ",BROKER://localhost:9094"
	script := "export KAFKA_ADVERTISED_LISTENERS=" + listeners + "\nexec /etc/kafka/docker/run\n"
	return c.CopyToContainer(ctx, []byte(script), kafkaStart, 0o644)
}

func file(path string, content []byte) testcontainers.ContainerFile {
	return testcontainers.ContainerFile{Reader: bytes.NewReader(content), ContainerFilePath: path, FileMode: 0o644}
}
