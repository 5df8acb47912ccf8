//go:build integration

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/store"
)

// The services, as the commands are called.
const (
	collector = "collector"
	stitcher  = "identity-stitcher"
	builder   = "profile-builder"
	activator = "activator"
	writer    = "journey-writer"
)

// Keys of the sources and of the profile API. The traffic of real SDKs carries wk_demo.
const (
	keyWeb     = "wk_demo"
	keyBackend = "wk_backend"
	keyRead    = "read-profiles"
	keyAdmin   = "explain-people"
)

const (
	// commandLimit bounds one run of a weft command.
	commandLimit = 4 * time.Minute
	// cleanLimit bounds the removal of a deployment's traces.
	cleanLimit = 3 * time.Minute
)

// options shape a deployment; the zero value is right for most tests.
type options struct {
	partitions int      // 0: fewPartitions
	delay      string   // of the journey; "": an hour, which no test waits for
	till       bool     // with the till inlet
	database   string   // "": one of its own
	broker     string   // address of a Kafka; "": the shared one
	services   []string // nil: all
	environ    []string // of all services and commands
	// sources makes topics and gives files for the collector's sources_dir; nil: none.
	sources func(d *deployment) map[string]string
}

// fewPartitions is enough to have keys on different ones, and quick to start.
const fewPartitions = 4

// deployment is one Weft: five processes on the shared servers.
type deployment struct {
	t          *testing.T
	opt        options
	id         string // stands in all names
	dir        string
	configFile string
	prefix     string
	database   string
	door, api  string // URLs
	journey    string // path of the journey file
	till       string // topic
	mail       *mailbox
	kafka      *foreign
	processes  map[string]*process
}

// deploy makes topics, keys and configuration, starts the five services and waits until all are ready. They are
// stopped, and everything of theirs is removed, when the test ends.
func deploy(t *testing.T, opt options) *deployment {
	t.Helper()
	if opt.partitions == 0 {
		opt.partitions = fewPartitions
	}
	if opt.delay == "" {
		opt.delay = "1h"
	}
	id := strings.ReplaceAll(uuid.NewString(), "-", "")[:12]
	d := &deployment{
		t: t, opt: opt, id: id, dir: t.TempDir(), prefix: "e2e." + id + ".", database: opt.database, processes: map[string]*process{},
		till: "e2e." + id + ".till.sales", mail: receiveMail(t),
	}
	if d.database == "" {
		d.database = "weft_e2e_" + id
	}
	d.configFile = filepath.Join(d.dir, "weft.yaml")
	d.journey = filepath.Join(d.dir, "journeys", "abandoned-cart.yaml")
	if d.opt.broker == "" {
		d.opt.broker = shared.kafka
	}
	d.kafka = newForeign(t, d.opt.broker)
	t.Cleanup(d.clean) // after the processes have stopped: clean-ups run last to first
	d.configure()
	if opt.till {
		d.kafka.createTopic(d.till, 2)
	}
	if opt.sources != nil {
		d.addSources()
	}
	d.run("topics")
	t.Cleanup(d.stop)
	for _, name := range d.names() {
		d.processes[name].start()
	}
	for _, name := range d.names() {
		d.processes[name].awaitReady()
	}
	return d
}

// addSources writes the files and tells the collector where they are.
func (d *deployment) addSources() {
	d.t.Helper()
	dir := filepath.Join(d.dir, "sources")
	require.NoError(d.t, os.MkdirAll(dir, 0o700))
	for name, text := range d.opt.sources(d) {
		require.NoError(d.t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	p := d.processes[collector]
	p.environ = append(p.environ, "WEFT_COLLECTOR_SOURCES_DIR="+dir)
}

// names are the services in the order of the pipeline.
func (d *deployment) names() []string {
	if d.opt.services != nil {
		return d.opt.services
	}
	return []string{collector, stitcher, builder, activator, writer}
}

// configure writes the configuration and the journey, and prepares the processes.
func (d *deployment) configure() {
	door, api := freeAddress(d.t), freeAddress(d.t)
	d.door, d.api = "http://"+door, "http://"+api
	inlets := "[]"
	if d.opt.till {
		inlets = fmt.Sprintf(tillInlet, d.till)
	}
	text := fmt.Sprintf(configuration, d.opt.broker, shared.redis, shared.clickHouse, d.database, d.prefix, d.opt.partitions,
		door, inlets, api, filepath.Dir(d.journey), d.door, d.mail.address, filepath.Join(d.dir, "data"))
	require.NoError(d.t, os.WriteFile(d.configFile, []byte(text), 0o600))
	require.NoError(d.t, os.MkdirAll(filepath.Dir(d.journey), 0o700))
	shipped, err := os.ReadFile(filepath.Join(root, "schemas/journeys/abandoned-cart.yaml"))
	require.NoError(d.t, err)
	d.writeJourney(edit(d.t, string(shipped), "delay: 1h ", "delay: "+d.opt.delay+" "))
	for _, name := range d.names() {
		d.processes[name] = d.process(name, name)
	}
}

// process prepares one of a service. name is that of its log.
func (d *deployment) process(service, name string, environ ...string) *process {
	p := &process{
		t: d.t, name: name, args: []string{service, "--config", d.configFile}, logFile: filepath.Join(d.dir, name+".log"), admin: freeAddress(d.t),
	}
	p.environ = append(append(d.environ("WEFT_ADMIN_LISTEN="+p.admin), d.opt.environ...), environ...)
	return p
}

// configuration is what differs from the defaults. Sessions are short, so that partitions of a process that was killed
// are soon another's.
const configuration = `
kafka: {brokers: [%q], session_timeout: 6s}
redis: {addresses: [%q]}
clickhouse: {addresses: [%q], database: %s}
topics: {prefix: %s, partitions: %d}
collector:
  listen: %s
  drain_delay: 0s
  sources:
    - {name: shop-web, write_key: ` + keyWeb + `, brand: main}
    - {name: shop-backend, write_key: ` + keyBackend + `, brand: main, trusted: true}
  inlets: %s
builder: {listen: %q, access_keys: [` + keyRead + `], admin_keys: [` + keyAdmin + `]}
activator:
  journeys: %q
  public_url: %s
  smtp: {address: %q, tls: none}
data_dir: %q
`

// tillInlet maps sales as a till writes them.
const tillInlet = `
    - name: till
      topic: %s
      brand: main
      trusted: true
      mapping:
        type: "'track'"
        event: "'Order Completed'"
        userId: $.customer.id
        context.traits.email: $.customer.email
        timestamp: $.soldAt
        properties.order_id: $.receipt
        properties.total: $.total
        properties.currency: $.currency
        properties.products[].product_id: $.items[*].sku
        properties.products[].name: $.items[*].name
        properties.products[].price: $.items[*].price
        properties.products[].quantity: $.items[*].quantity`

// environ is a clean environment: nothing of the caller's Weft comes in.
func (d *deployment) environ(more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + d.dir, "TMPDIR=" + d.dir}, more...)
}

// writeJourney replaces the journey file in one step, as editors do.
func (d *deployment) writeJourney(text string) {
	d.t.Helper()
	require.NoError(d.t, os.WriteFile(d.journey+".new", []byte(text), 0o600))
	require.NoError(d.t, os.Rename(d.journey+".new", d.journey))
}

// edit replaces one place of a text, and fails where it is not there exactly once.
func edit(t testing.TB, text, old, replacement string) string {
	t.Helper()
	require.Equal(t, 1, strings.Count(text, old), "%q in the text", old)
	return strings.Replace(text, old, replacement, 1)
}

// command prepares a weft command with the deployment's configuration.
func (d *deployment) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, weft, append(args, "--config", d.configFile)...)
	cmd.Env, cmd.Dir = d.environ(d.opt.environ...), root
	return cmd
}

// run runs a weft command to its end and returns what it printed on standard output.
func (d *deployment) run(args ...string) string {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), commandLimit)
	defer cancel()
	cmd := d.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	require.NoError(d.t, err, "weft %s:\n%s%s", strings.Join(args, " "), stdout.String(), stderr.String())
	return stdout.String()
}

// healthy fails the test unless all services run and are ready.
func (d *deployment) healthy() {
	d.t.Helper()
	for _, name := range d.names() {
		d.processes[name].awaitReady()
	}
}

// stop ends the services in the order of the pipeline; each must end in order.
func (d *deployment) stop() {
	for _, name := range d.names() {
		if err := d.processes[name].stop(); err != nil {
			d.t.Error(err)
		}
	}
	if d.t.Failed() {
		for _, name := range d.names() {
			d.processes[name].showLog()
		}
	}
}

// clean removes what the deployment has left in the servers.
func (d *deployment) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), cleanLimit)
	defer cancel()
	if err := d.kafka.deleteTopics(ctx, "e2e."+d.id+"."); err != nil {
		d.t.Error(err)
	}
	d.kafka.close()
	if _, err := clickHouse(ctx, "default", "", "DROP DATABASE IF EXISTS "+d.database+" SYNC"); err != nil {
		d.t.Error(err)
	}
	if err := deleteKeys(ctx, d.prefix); err != nil {
		d.t.Error(err)
	}
}

// sweep removes the keys of one page of a scan and returns the cursor of the next.
const sweep = `
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', 2000)
for _, key in ipairs(page[2]) do redis.call('UNLINK', key) end
return page[1]`

// deleteKeys removes the deployment's keys of Redis: they all hold its prefix.
func deleteKeys(ctx context.Context, prefix string) error {
	c, err := store.New(config.Redis{Addresses: []string{shared.redis}}, zap.NewNop())
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing is pending
	script := store.NewScript(sweep)
	for cursor := "0"; ; {
		reply, err := script.Run(ctx, c, nil, cursor, "*"+prefix+"*")
		if err != nil {
			return fmt.Errorf("remove keys of %s: %w", prefix, err)
		}
		if cursor = string(reply.Bytes()); cursor == "0" {
			return nil
		}
	}
}

// sorted is a map as text, for messages.
func sorted[V any](m map[string]V) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "%s: %v; ", k, m[k])
	}
	return strings.TrimSuffix(b.String(), "; ")
}
