package servers

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/services/weft/demo"
)

const (
	// Instances is how many processes each stage has, so that partitions change hands.
	Instances = 2
	// Partitions of every topic: some keys share one, and each instance owns some.
	Partitions = 4
	// SessionTimeout is after which silence a member loses its partitions. It is short, so that a run sees many.
	SessionTimeout = 3 * time.Second
	// Prefix stands before the deployment's topics and groups.
	Prefix = "chaos."
	// Database is the deployment's in ClickHouse.
	Database = "weft_chaos"
	// commandLimit bounds a weft command that is run to its end.
	commandLimit = 3 * time.Minute
)

// Stages are the services, in the order of the pipeline.
func Stages() []string {
	return []string{"collector", "identity-stitcher", "profile-builder", "activator", "journey-writer"}
}

// Service is one process of a stage.
type Service struct {
	*Process
	Stage string
	Clock *Clock
}

// SetClock steps the service's own clock to be off by this much, in whole seconds.
func (s *Service) SetClock(off time.Duration) error { return s.Clock.Set(s.PID(), off) }

// configuration is what differs from the defaults. A sale at the till carries the number of its action, so that its
// row can be told.
const configuration = `
kafka: {brokers: [%s], session_timeout: %s, rebalance_timeout: %s}
redis: {addresses: [%s]}
clickhouse: {addresses: [%q], database: ` + Database + `}
topics: {prefix: ` + Prefix + `, partitions: %d, replication_factor: 3, min_insync_replicas: 2}
collector:
  drain_delay: 0s
  sources:
    - {name: web, write_key: demo-web, brand: main}
    - {name: app, write_key: demo-app, brand: main}
    - {name: shop, write_key: demo-shop, brand: main, trusted: true}
  inlets:
    - name: till
      topic: ` + demo.TillTopic + `
      brand: main
      trusted: true
      mapping:
%s
activator:
  journeys: %q
  public_url: %s
  smtp: {address: %q, tls: none}
data_dir: %q
`

// services writes the configuration and prepares the processes.
func (d *Deployment) services() error {
	base := filepath.Join(d.Dir, "data", "weft")
	journeys := filepath.Join(base, "journeys")
	if err := os.MkdirAll(journeys, 0o700); err != nil {
		return fmt.Errorf("prepare weft: %w", err)
	}
	if err := os.WriteFile(filepath.Join(journeys, "abandoned-cart.yaml"), d.Journey, 0o600); err != nil {
		return fmt.Errorf("prepare weft: %w", err)
	}
	for i := range Instances {
		d.Doors = append(d.Doors, "http://"+d.address(fmt.Sprintf("collector-%d-door", i+1)))
	}
	var proxiedKafka, proxiedRedis []string
	for _, l := range d.KafkaLinks {
		proxiedKafka = append(proxiedKafka, l.Address)
	}
	for _, l := range d.RedisLinks {
		proxiedRedis = append(proxiedRedis, l.Address)
	}
	for file, text := range map[string]string{
		d.proxiedConfig(): d.configuration(proxiedKafka, proxiedRedis, d.ClickHouseLink.Address, journeys, base),
		d.directConfig():  d.configuration(d.KafkaDirect, d.redisDirect, d.ClickHouseDirect, journeys, base),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return fmt.Errorf("prepare weft: %w", err)
		}
	}
	for _, stage := range Stages() {
		for i := range Instances {
			name := fmt.Sprintf("%s-%d", stage, i+1)
			admin := d.address(name + "-admin")
			env := d.environ(
				"WEFT_ADMIN_LISTEN="+admin,
				"WEFT_COLLECTOR_LISTEN="+strings.TrimPrefix(d.Doors[i], "http://"),
				"WEFT_BUILDER_LISTEN="+d.address(name+"-api"))
			if d.Static {
				env = append(env, "WEFT_KAFKA_INSTANCE_ID="+name)
			}
			s := &Service{Stage: stage, Clock: &Clock{}}
			s.Process = &Process{
				Name: name, argv: []string{d.Binary, stage, "--config", d.proxiedConfig()}, env: env,
				log:   filepath.Join(d.Dir, "logs", name+".log"),
				ready: func(ctx context.Context) error { return answers(ctx, "http://"+admin+"/readyz") },
			}
			s.launch = s.Clock.launch
			d.Services = append(d.Services, s)
		}
	}
	return nil
}

func (d *Deployment) proxiedConfig() string { return filepath.Join(d.Dir, "data", "weft", "weft.yaml") }
func (d *Deployment) directConfig() string {
	return filepath.Join(d.Dir, "data", "weft", "direct.yaml")
}

func (d *Deployment) configuration(kafka, redis []string, clickHouse, journeys, base string) string {
	var mapping strings.Builder
	inlet := demo.TillInlet().Mapping
	inlet["properties.action"] = "$.action"
	for to, from := range inlet {
		fmt.Fprintf(&mapping, "        %s: %q\n", to, from)
	}
	return fmt.Sprintf(configuration, quoted(kafka), SessionTimeout, 2*SessionTimeout, quoted(redis), clickHouse, Partitions,
		strings.TrimRight(mapping.String(), "\n"), journeys, d.Doors[0], d.Mail, base)
}

func quoted(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(out, ", ")
}

// environ is a clean environment: nothing of the caller's Weft comes in.
func (d *Deployment) environ(more ...string) []string {
	home := filepath.Join(d.Dir, "data", "weft")
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home}, more...)
}

// Topics are the deployment's.
func (d *Deployment) Topics() topic.Set { return topic.Set{Prefix: Prefix, Partitions: Partitions} }

// Command runs a weft command to its end, on addresses that no proxy is in front of, and returns what it printed.
func (d *Deployment) Command(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.Binary, append(args, "--config", d.directConfig())...) //nolint:gosec // weft
	cmd.Env = d.environ()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("weft %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}
