package config

import (
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write weft.example.yaml anew")

const exampleFile = "../../weft.example.yaml"

func load(t *testing.T, text string, environ ...string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "weft.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	t.Chdir(filepath.Dir(path))
	return Load("weft.yaml", environ)
}

func TestExampleFileIsThatOfTheCode(t *testing.T) {
	want, err := Example()
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.WriteFile(exampleFile, want, 0o644)) //nolint:gosec // a public file of the repository
	}
	have, err := os.ReadFile(exampleFile)
	require.NoError(t, err)
	require.Equal(t, string(want), string(have), "run: go test ./pkg/config -run Example -update")
}

func TestExampleIsTheDefaultsAndASample(t *testing.T) {
	text, err := Example()
	require.NoError(t, err)
	have, err := load(t, string(text))
	require.NoError(t, err)
	want := Defaults()
	want.Collector.Sources, want.Collector.Inlets = sampleSources(), sampleInlets()
	require.Equal(t, emptyAsNil(want), emptyAsNil(have))
	for _, line := range strings.Split(string(text), "\n") {
		require.LessOrEqual(t, len(line), commentWidth+8, line)
	}
}

// emptyAsNil makes configurations comparable: an empty list in the file is an empty list.
func emptyAsNil(c Config) Config {
	nilEmpty(reflect.ValueOf(&c).Elem())
	return c
}

func nilEmpty(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			nilEmpty(v.Field(i))
		}
	case reflect.Slice, reflect.Map:
		if v.Len() == 0 {
			v.SetZero()
			return
		}
		for i := 0; v.Kind() == reflect.Slice && i < v.Len(); i++ {
			nilEmpty(v.Index(i))
		}
	}
}

func TestEveryKeyIsNamedAndExplained(t *testing.T) {
	var walk func(path string, typ reflect.Type)
	walk = func(path string, typ reflect.Type) {
		for _, f := range fieldsOf(typ) {
			p := join(path, f.name)
			require.NotEmpty(t, f.name, "in %s", path)
			require.NotEmpty(t, f.doc, p)
			switch sub := typ.Field(f.index).Type; {
			case sub.Kind() == reflect.Struct:
				walk(p, sub)
			case sub.Kind() == reflect.Slice && sub.Elem().Kind() == reflect.Struct:
				walk(p, sub.Elem())
			}
		}
	}
	walk("", reflect.TypeFor[Config]())

	cfg, names := Defaults(), map[string]string{}
	for _, x := range leaves("", reflect.ValueOf(&cfg).Elem()) {
		name := EnvName(x.path)
		require.Empty(t, names[name], "%s is the variable of two keys", name)
		names[name] = x.path
		require.False(t, name == EnvFile || name == EnvLibCHDB || strings.HasPrefix(name, EnvTestPrefix), name)
	}
}

func TestDefaultsAreValid(t *testing.T) {
	require.NoError(t, Validate(Defaults()))
	cfg, err := Load("", []string{"PATH=/bin", "HOME=/root"})
	require.NoError(t, err)
	require.Equal(t, Defaults(), cfg)
}

func TestEnvironmentWinsOverFileWinsOverDefault(t *testing.T) {
	cfg, err := load(t, `
kafka:
  brokers: [a:1, b:2]
  client_id: from-file
topics: {retention: 3d}
redis:
log: {level: warn}
`, "WEFT_KAFKA_BROKERS=c:3, d:4", "WEFT_TOPICS_PARTITIONS=3", "WEFT_REDIS_ALLOW_NON_DURABLE=true",
		"WEFT_WRITER_FLUSH_INTERVAL=250ms", "WEFT_ADMIN_LISTEN=", "WEFT_CONFIG=x", "WEFT_TEST_KAFKA=y", "WEFT_LIBCHDB=z")
	require.NoError(t, err)
	want := Defaults()
	want.Kafka.Brokers, want.Kafka.ClientID = []string{"c:3", "d:4"}, "from-file"
	want.Topics.Retention, want.Topics.Partitions = 72*time.Hour, 3
	want.Redis.AllowNonDurable = true
	want.Writer.FlushInterval = 250 * time.Millisecond
	want.Admin.Listen = ""
	want.Log.Level = "warn"
	require.Equal(t, want, cfg)
}

func TestKeysStandInTheDataDirectoryUnlessSaidOtherwise(t *testing.T) {
	cfg, err := Load("", []string{"WEFT_DATA_DIR=/srv/weft", "WEFT_COLLECTOR_UNSUBSCRIBE_SECRET_FILE=/run/secrets/u"})
	require.NoError(t, err)
	require.Equal(t, "/srv/weft/identity.key", cfg.Identity.KeyFile)
	require.Equal(t, "/run/secrets/u", cfg.Collector.UnsubscribeSecret)
}

func TestEveryFaultIsToldAtOnce(t *testing.T) {
	_, err := load(t, `kafka:
  broker: [a:1]
  session_timeout: 10
  tls: yes please
topics:
  partitions: "12"
  partitions: 13
  retention: -1h
collector:
  listen: 8080
  sources:
    - {name: web, write_key: sesame}
    - name: web
      write_key: sesame
      brand: "a b"
      trustd: red
  inlets:
    - {name: till, topic: weft.events.collected, mapping: {event: Order}}
colour: red
`, "WEFT_KAFKA_BROKER=a:1", "WEFT_LOG_LEVEL=loud", "WEFT_TOPICS_MIN_INSYNC_REPLICAS=x")
	var faults Faults
	require.ErrorAs(t, err, &faults)
	require.Equal(t, strings.TrimSpace(`
configuration has 17 faults:
  weft.yaml:2: kafka.broker: unknown key; did you mean brokers?
  weft.yaml:3: kafka.session_timeout: want a duration such as 500ms, 10s, 72h or 7d, found "10"
  weft.yaml:4: kafka.tls: want keys with values, found a single value
  weft.yaml:6: topics.partitions: want a whole number, found "12"
  weft.yaml:7: topics.partitions: given twice, first in line 6
  weft.yaml:10: collector.listen: want text: put it in quotes
  weft.yaml:16: collector.sources[1].trustd: unknown key; did you mean trusted?
  weft.yaml:19: colour: unknown key; known here: kafka, redis, clickhouse, topics, identity, collector, stitcher, builder, activator, writer, admin, log, data_dir
  WEFT_KAFKA_BROKER: unknown variable; did you mean WEFT_KAFKA_BROKERS?
  WEFT_TOPICS_MIN_INSYNC_REPLICAS: topics.min_insync_replicas: want a whole number, found "x"
  weft.yaml:8: topics.retention: want a duration above 0, found -1h
  weft.yaml:13: collector.sources[1].name: "web" is the name of collector.sources[0]
  weft.yaml:15: collector.sources[1].brand: want 1 to 64 letters, digits and . _ -, found "a b"
  weft.yaml:14: collector.sources[1].write_key: the same key as that of collector.sources[0].write_key
  weft.yaml:18: collector.inlets[0].topic: weft.events.collected is Weft's own
  weft.yaml:18: collector.inlets[0].mapping.event: want a path such as $.sale.id, a literal in quotes such as "'Order Completed'", or an expression such as = record.total, found "Order"
  WEFT_LOG_LEVEL: log.level: want one of ["debug" "info" "warn" "error"], found "loud"
`), err.Error())
	require.NotContains(t, err.Error(), "sesame")
}

func TestWhatIsNoConfiguration(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"broken":         {"kafka: [", "weft.yaml: "},
		"list":           {"- 1", "weft.yaml:1: want keys with values, found a list"},
		"two documents":  {"log: {}\n---\nlog: {}", "weft.yaml:2: a second document"},
		"own anchor":     {"kafka: &k\n  tls: *k", "kafka.tls.tls"},
		"secret's type":  {"builder:\n  access_keys: [{a: sesame}]", "builder.access_keys[0]: want text, found keys with values"},
		"number in text": {"clickhouse: {database: 7}", "clickhouse.database: want text: put it in quotes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, c.text)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "sesame")
		})
	}
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil)
	require.ErrorIs(t, err, os.ErrNotExist)
	cfg, err := load(t, "# nothing but a comment\n")
	require.NoError(t, err)
	require.Equal(t, Defaults(), cfg)
}

func TestValidateNamesThePath(t *testing.T) {
	for path, change := range map[string]func(*Config){
		"kafka.brokers[1]":                  func(c *Config) { c.Kafka.Brokers = []string{"a:9092", "b"} },
		"kafka.client_id":                   func(c *Config) { c.Kafka.ClientID = "" },
		"kafka.tls":                         func(c *Config) { c.Kafka.TLS = TLS{Enabled: true, CertFile: "x"} },
		"kafka.sasl.mechanism":              func(c *Config) { c.Kafka.SASL = SASL{"gssapi", "u", "f"} },
		"kafka.sasl":                        func(c *Config) { c.Kafka.SASL.Mechanism = "plain" },
		"kafka.session_timeout":             func(c *Config) { c.Kafka.SessionTimeout = 0 },
		"kafka.rebalance_timeout":           func(c *Config) { c.Kafka.RebalanceTime = -1 },
		"redis.addresses[0]":                func(c *Config) { c.Redis.Addresses = []string{":6379"} },
		"redis.password_file":               func(c *Config) { c.Redis.Username = "weft" },
		"redis.tls":                         func(c *Config) { c.Redis.TLS.CAFile = "x" },
		"clickhouse.addresses[0]":           func(c *Config) { c.ClickHouse.Addresses = []string{"a:0"} },
		"clickhouse.database":               func(c *Config) { c.ClickHouse.Database = "a; DROP" },
		"clickhouse.username":               func(c *Config) { c.ClickHouse.Username = "" },
		"topics.prefix":                     func(c *Config) { c.Topics.Prefix = "{weft}" },
		"topics.partitions":                 func(c *Config) { c.Topics.Partitions = MaxPartitions + 1 },
		"topics.replication_factor":         func(c *Config) { c.Topics.ReplicationFactor = 0 },
		"topics.min_insync_replicas":        func(c *Config) { c.Topics.MinInsyncReplicas = 2 },
		"topics.retention":                  func(c *Config) { c.Topics.Retention = 0 },
		"identity.key_file":                 func(c *Config) { c.Identity.KeyFile = "" },
		"identity.default_region":           func(c *Config) { c.Identity.DefaultRegion = "XX" },
		"collector.listen":                  func(c *Config) { c.Collector.Listen = "8080" },
		"collector.default_brand":           func(c *Config) { c.Collector.Brand = "" },
		"collector.sources[0].name":         func(c *Config) { c.Collector.Sources = []Source{{Name: InboxSource, WriteKey: "k"}} },
		"collector.sources[0].write_key":    func(c *Config) { c.Collector.Sources = []Source{{Name: "web"}} },
		"collector.inlets[1].topic":         func(c *Config) { c.Collector.Inlets = []Inlet{{Name: "a", Topic: "t"}, {Name: "b", Topic: "t"}} },
		"collector.inlets[0].topic":         func(c *Config) { c.Collector.Inlets = []Inlet{{Name: "a", Topic: "weft.events.inbox"}} },
		"collector.max_request_bytes":       func(c *Config) { c.Collector.MaxRequestBytes = 0 },
		"collector.max_event_bytes":         func(c *Config) { c.Collector.MaxEventBytes = 2 << 20 },
		"collector.max_batch_events":        func(c *Config) { c.Collector.MaxBatchEvents = 0 },
		"collector.max_in_flight_bytes":     func(c *Config) { c.Collector.MaxInFlightBytes = 1 },
		"collector.historical_after":        func(c *Config) { c.Collector.HistoricalAfter = 0 },
		"collector.spool_max_bytes":         func(c *Config) { c.Collector.SpoolMaxBytes = 1 },
		"collector.spool_dir":               func(c *Config) { c.Collector.SpoolDir = "" },
		"collector.drain_delay":             func(c *Config) { c.Collector.DrainDelay = c.Admin.ShutdownTimeout },
		"collector.spool_after":             func(c *Config) { c.Collector.SpoolAfter = c.Collector.ProduceTimeout },
		"collector.produce_timeout":         func(c *Config) { c.Collector.ProduceTimeout = 0 },
		"collector.unsubscribe_secret_file": func(c *Config) { c.Collector.UnsubscribeSecret = "" },
		"stitcher.duplicate_window":         func(c *Config) { c.Stitcher.DuplicateWindow = 0 },
		"stitcher.cache_entries":            func(c *Config) { c.Stitcher.CacheEntries = -1 },
		"stitcher.batch_records":            func(c *Config) { c.Stitcher.BatchRecords = 5001 },
		"builder.listen":                    func(c *Config) { c.Builder.Listen = "a:70000" },
		"builder.admin_keys[0]":             func(c *Config) { c.Builder.AdminKeys = []string{"a b"} },
		"builder.access_keys[0]":            func(c *Config) { c.Builder.AccessKeys = []string{""} },
		"builder.batch_records":             func(c *Config) { c.Builder.BatchRecords = 0 },
		"activator.journeys":                func(c *Config) { c.Activator.Journeys = "" },
		"activator.public_url":              func(c *Config) { c.Activator.PublicURL = "shop.example" },
		"activator.fence_poll":              func(c *Config) { c.Activator.FencePoll = 0 },
		"activator.batch_records":           func(c *Config) { c.Activator.BatchRecords = 0 },
		"activator.smtp.address":            func(c *Config) { c.Activator.SMTP.Address = "mail" },
		"activator.smtp.password_file":      func(c *Config) { c.Activator.SMTP.Username = "u" },
		"activator.smtp.tls":                func(c *Config) { c.Activator.SMTP.TLS = "maybe" },
		"activator.smtp.helo":               func(c *Config) { c.Activator.SMTP.HELO = "" },
		"activator.smtp.timeout":            func(c *Config) { c.Activator.SMTP.Timeout = 0 },
		"activator.webhook.url":             func(c *Config) { c.Activator.Webhook.URL, c.Activator.Webhook.SecretFile = "http://a", "f" },
		"activator.webhook.secret_file":     func(c *Config) { c.Activator.Webhook.URL = "https://a" },
		"activator.webhook.timeout":         func(c *Config) { c.Activator.Webhook.Timeout = 0 },
		"writer.batch_rows":                 func(c *Config) { c.Writer.BatchRows = 0 },
		"writer.flush_interval":             func(c *Config) { c.Writer.FlushInterval = 0 },
		"writer.insert_timeout":             func(c *Config) { c.Writer.InsertTimeout = 0 },
		"admin.listen":                      func(c *Config) { c.Admin.Listen = "x" },
		"admin.shutdown_timeout":            func(c *Config) { c.Admin.ShutdownTimeout = 0 },
		"log.level":                         func(c *Config) { c.Log.Level = "trace" },
		"log.format":                        func(c *Config) { c.Log.Format = "xml" },
		"data_dir":                          func(c *Config) { c.DataDir = "" },
	} {
		t.Run(path, func(t *testing.T) {
			cfg := Defaults()
			change(&cfg)
			var faults Faults
			require.ErrorAs(t, Validate(cfg), &faults)
			require.Len(t, faults, 1, faults)
			require.Equal(t, path, faults[0].Path)
		})
	}
}

// A message under way must be able to end while the service shuts down.
func TestMessagesEndWithinAShutdown(t *testing.T) {
	for path, change := range map[string]func(*Config, time.Duration){
		"activator.smtp.timeout": func(c *Config, d time.Duration) {
			c.Activator.SMTP.Address, c.Activator.SMTP.Timeout = "mail:25", d
		},
		"activator.webhook.timeout": func(c *Config, d time.Duration) {
			c.Activator.Webhook = Webhook{URL: "https://a", SecretFile: "f", Timeout: d}
		},
	} {
		cfg := Defaults()
		change(&cfg, cfg.Admin.ShutdownTimeout-1)
		require.NoError(t, Validate(cfg))
		change(&cfg, cfg.Admin.ShutdownTimeout)
		var faults Faults
		require.ErrorAs(t, Validate(cfg), &faults)
		require.Len(t, faults, 1, faults)
		require.Equal(t, path, faults[0].Path)
		require.Contains(t, faults[0].Problem, "admin.shutdown_timeout")
	}
	cfg := Defaults()
	cfg.Admin.ShutdownTimeout, cfg.Collector.DrainDelay = time.Second, 0
	require.NoError(t, Validate(cfg), "no channel, no message")
}

func TestPrintHidesSecrets(t *testing.T) {
	cfg := Defaults()
	cfg.Collector.Sources = []Source{{Name: "web", WriteKey: "sesame"}}
	cfg.Builder.AccessKeys = []string{"sesame", "sesame2"}
	out, err := Print(cfg)
	require.NoError(t, err)
	require.NotContains(t, string(out), "sesame")
	require.Contains(t, string(out), `access_keys: ['***', '***']`)
	require.Contains(t, string(out), `write_key: '***'`)
}

// What Print writes, Load reads back: any text, whatever YAML would take it for.
func TestPrintReadsBack(t *testing.T) {
	words := rapid.SampledFrom([]string{"", "yes", "NO", "null", "~", "0x1f", "1e3", "2026-01-01", "<<", "a: b", "# c", "'x'", "\"y\"", " z", "*a", "&b", "!!int 3", "ü\n\tq", "$.a[0]", "12:30"})
	word := rapid.OneOf(words, rapid.String())
	rapid.Check(t, func(t *rapid.T) {
		cfg := Defaults()
		for _, x := range leaves("", reflect.ValueOf(&cfg).Elem()) {
			switch {
			case x.secret:
			case isList(x.value.Type()):
				x.value.Set(reflect.ValueOf(rapid.SliceOfN(word, 1, 3).Draw(t, x.path)))
			case x.value.Type() == durationType:
				x.value.SetInt(rapid.Int64().Draw(t, x.path))
			case x.value.Kind() == reflect.String:
				x.value.SetString(word.Draw(t, x.path))
			case x.value.Kind() == reflect.Int:
				x.value.SetInt(int64(rapid.Int().Draw(t, x.path)))
			}
		}
		cfg.Collector.Inlets = []Inlet{{Name: word.Draw(t, "name"), Mapping: rapid.MapOfN(word, word, 1, 3).Draw(t, "mapping")}}
		out, err := Print(cfg)
		if err != nil {
			t.Fatal(err)
		}
		var l loader
		l.origin = map[string]string{}
		got := Defaults()
		l.yaml("", out, reflect.ValueOf(&got).Elem())
		if len(l.faults) > 0 {
			t.Fatalf("%v in\n%s", l.faults, out)
		}
		if want := emptyAsNil(cfg); !reflect.DeepEqual(emptyAsNil(got), want) {
			t.Fatalf("read back\n%+v\nwant\n%+v\nfrom\n%s", got, want, out)
		}
	})
}

func TestDurations(t *testing.T) {
	for text, d := range map[string]time.Duration{
		"0s": 0, "7d": 7 * 24 * time.Hour, "72h": 72 * time.Hour, "1h30m": 90 * time.Minute, "1h": time.Hour, "10m": 10 * time.Minute,
		"1m5s": 65 * time.Second, "250ms": 250 * time.Millisecond, "10s": 10 * time.Second,
	} {
		got, err := parseDuration(text)
		require.NoError(t, err)
		require.Equal(t, d, got)
		if text != "72h" {
			require.Equal(t, text, formatDuration(d))
		}
	}
	for _, text := range []string{"", "d", "7", "1.5d", "999999999999d", "soon"} {
		_, err := parseDuration(text)
		require.Error(t, err, text)
	}
}

// Who shortens the shutdown gets a drain delay that fits; what is given must fit.
func TestDrainDelayFitsTheShutdown(t *testing.T) {
	cfg, err := load(t, "")
	require.NoError(t, err)
	require.Equal(t, 3*time.Second, cfg.Collector.DrainDelay)
	cfg, err = load(t, "admin: {shutdown_timeout: 4s}\nactivator: {smtp: {timeout: 1s}, webhook: {timeout: 1s}}\n")
	require.NoError(t, err)
	require.Equal(t, 2*time.Second, cfg.Collector.DrainDelay)
	cfg, err = load(t, "", "WEFT_COLLECTOR_DRAIN_DELAY=5s")
	require.NoError(t, err)
	require.Equal(t, 5*time.Second, cfg.Collector.DrainDelay)
	_, err = load(t, "admin: {shutdown_timeout: 4s}\ncollector: {drain_delay: 3s}\nactivator: {smtp: {timeout: 1s}, webhook: {timeout: 1s}}\n")
	require.ErrorContains(t, err, "collector.drain_delay")
	require.ErrorContains(t, err, "want 0 to half of admin.shutdown_timeout (4s), found 3s")
	_, err = load(t, "admin: {shutdown_timeout: -1s}")
	require.ErrorContains(t, err, "admin.shutdown_timeout")
	require.NotContains(t, err.Error(), "drain_delay", "it was not given")

	cfg, err = Load("", nil, func(c *Config) { c.Collector.DrainDelay = 0 })
	require.NoError(t, err)
	require.Zero(t, cfg.Collector.DrainDelay)
}
