package config

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math"
	"net"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nyaruka/phonenumbers"

	"github.com/weft-cdp/weft/pkg/topic"
)

// MaxPartitions is the most partitions a deployment may have. The journey-writer's announcement must fit
// into a commit's metadata, 4,096 bytes by Kafka's default offset.metadata.max.bytes, that is 3,072 bytes
// before base64. It holds one position for each partition of each stage that writes a topic, two stages at
// most (activations.settled), of at most 9 bytes as a varint: 128 x 2 x 9 = 2,304, which leaves room for
// the range, the names of the stages and inlets.
const MaxPartitions = 128

// maxTopicName is Kafka's own limit.
const maxTopicName = 249

// maxEventBytes keeps one event, with its headers, below 1 MiB: what the collector's spool takes as one item, and
// about Kafka's default max.message.bytes (1,048,588), which TopicSpecs follows where that is less.
const maxEventBytes = 1_000_000

// Set is the topics of this deployment.
func (t Topics) Set() topic.Set { return topic.Set{Prefix: t.Prefix, Partitions: t.Partitions} }

type checker struct{ faults Faults }

// check tells everything that is wrong in meaning.
func check(cfg Config) Faults {
	var c checker
	c.servers(cfg)
	c.topics(cfg.Topics)
	c.identity(cfg.Identity)
	c.collector(cfg)
	c.stages(cfg)
	c.activator(cfg.Activator)
	c.process(cfg)
	return c.faults
}

// want notes a fault of path unless ok.
func (c *checker) want(ok bool, path, format string, args ...any) {
	if !ok {
		c.faults = append(c.faults, Fault{Path: path, Problem: fmt.Sprintf(format, args...)})
	}
}

func (c *checker) positive(path string, n int) { c.want(n > 0, path, "want more than 0, found %d", n) }

func (c *checker) lasts(path string, d time.Duration) {
	c.want(d > 0, path, "want a duration above 0, found %s", formatDuration(d))
}

func (c *checker) oneOf(path, value string, allowed ...string) {
	c.want(slices.Contains(allowed, value), path, "want one of %q, found %q", allowed, value)
}

// listens checks an address to listen on: any host or none, port 0 for a free one.
func (c *checker) listens(path, address string) {
	_, port, err := net.SplitHostPort(address)
	_, errPort := strconv.ParseUint(port, 10, 16)
	c.want(err == nil && errPort == nil, path, "want host:port to listen on, found %q", address)
}

// dials checks an address to connect to.
func (c *checker) dials(path, address string) {
	host, port, err := net.SplitHostPort(address)
	n, errPort := strconv.ParseUint(port, 10, 16)
	c.want(err == nil && errPort == nil && host != "" && n > 0, path, "want host:port, found %q", address)
}

func (c *checker) dialsAll(path string, addresses []string) {
	for i, a := range addresses {
		c.dials(index(path, i), a)
	}
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func (c *checker) tls(path string, t TLS) {
	c.want((t.CertFile == "") == (t.KeyFile == ""), path, "cert_file and key_file belong together")
	c.want(t.Enabled || t.CAFile+t.CertFile+t.KeyFile == "", path, "files are given, but enabled is false")
}

func (c *checker) servers(cfg Config) {
	k := cfg.Kafka
	c.dialsAll("kafka.brokers", k.Brokers)
	c.want(k.ClientID != "", "kafka.client_id", "want a name")
	c.tls("kafka.tls", k.TLS)
	c.oneOf("kafka.sasl.mechanism", k.SASL.Mechanism, "", "plain", "scram-sha-256", "scram-sha-512")
	given := k.SASL.Username != "" && k.SASL.PasswordFile != ""
	c.want(k.SASL.Mechanism == "" || given, "kafka.sasl", "mechanism %s needs username and password_file", k.SASL.Mechanism)
	c.want(k.SASL.Mechanism != "" || k.SASL.Username+k.SASL.PasswordFile == "", "kafka.sasl", "a log-in is given, but no mechanism")
	c.want(k.InstanceID == "" || plainName.MatchString(k.InstanceID), "kafka.instance_id",
		"want nothing or 1 to 64 letters, digits and . _ -, found %q", k.InstanceID)
	c.lasts("kafka.session_timeout", k.SessionTimeout)
	c.lasts("kafka.rebalance_timeout", k.RebalanceTime)

	c.dialsAll("redis.addresses", cfg.Redis.Addresses)
	c.want(cfg.Redis.Username == "" || cfg.Redis.PasswordFile != "", "redis.password_file", "username needs it")
	c.tls("redis.tls", cfg.Redis.TLS)

	c.dialsAll("clickhouse.addresses", cfg.ClickHouse.Addresses)
	c.want(databaseName.MatchString(cfg.ClickHouse.Database), "clickhouse.database",
		"want letters, digits and underscores, not beginning with a digit, found %q", cfg.ClickHouse.Database)
	c.want(cfg.ClickHouse.Username != "", "clickhouse.username", "want a user")
	c.tls("clickhouse.tls", cfg.ClickHouse.TLS)
}

var (
	databaseName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)
	topicChars   = regexp.MustCompile(`^[A-Za-z0-9._-]*$`)
	// plainName is what sources and brands may be called: they stand in headers, positions, Redis keys
	// and labels.
	plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

func (c *checker) topics(t Topics) {
	c.want(topicChars.MatchString(t.Prefix), "topics.prefix", "want letters, digits and . _ -, found %q", t.Prefix)
	longest := 0
	for _, s := range t.Set().Specs() {
		longest = max(longest, len(s.Name))
	}
	c.want(longest <= maxTopicName, "topics.prefix", "too long: Kafka's topic names have at most %d characters", maxTopicName)
	c.want(t.Partitions >= 1 && t.Partitions <= MaxPartitions, "topics.partitions",
		"want 1 to %d, found %d (what the journey-writer announces must fit into a commit's metadata)", MaxPartitions, t.Partitions)
	c.want(t.ReplicationFactor >= 1 && t.ReplicationFactor <= 1<<15-1, "topics.replication_factor", "want 1 or more, found %d", t.ReplicationFactor)
	c.want(t.MinInsyncReplicas >= 1 && t.MinInsyncReplicas <= max(t.ReplicationFactor, 1), "topics.min_insync_replicas",
		"want 1 to replication_factor (%d), found %d", t.ReplicationFactor, t.MinInsyncReplicas)
	c.lasts("topics.retention", t.Retention)
}

// Bounds of identity.governor. A person's list is read and written whole; a link more costs as much as the person is large.
const (
	maxMembers = 100_000
	maxLinks   = 256 // as far as the graph counts
)

func (c *checker) identity(id Identity) {
	c.want(id.Claims == "new" || id.Claims == "never", "identity.claims", "want new or never, found %q", id.Claims)
	g := id.Governor
	for _, f := range []struct {
		name       string
		have, most int
	}{
		{"members_per_person", g.MembersPerPerson, maxMembers},
		{"merges_per_person", g.MergesPerPerson, maxMembers},
		{"links_per_identifier", g.LinksPerIdentifier, maxLinks},
		{"merges_per_minute", g.MergesPerMinute, math.MaxInt32},
		{"merges_per_minute_per_source", g.MergesPerMinutePerSource, math.MaxInt32},
	} {
		c.want(f.have >= 0 && f.have <= f.most, "identity.governor."+f.name, "want 0 to %d, found %d", f.most, f.have)
	}
	c.want(id.KeyFile != "", "identity.key_file", "want a path")
	if r := id.DefaultRegion; r != "" {
		c.want(phonenumbers.GetSupportedRegions()[r], "identity.default_region", "want an ISO country code in capitals such as PL, found %q", r)
	}
}

// InboxSource is the source name of events from the shipped inlet events.inbox.
const InboxSource = "inbox"

func (c *checker) collector(cfg Config) {
	k := cfg.Collector
	c.listens("collector.listen", k.Listen)
	c.brand("collector.default_brand", k.Brand, true)
	names := map[string]string{InboxSource: "the shipped inlet events.inbox"}
	keys := map[[32]byte]string{}
	for i, s := range k.Sources {
		path := s.path(i)
		c.sender(path, s.Name, s.Brand, names)
		c.sourceLimits(path, s, k)
		switch s.KindOrDefault() {
		case KindKafka:
			c.kafkaSource(path, s)
		case KindWebhook:
			c.webhookSource(path, s)
		default:
			c.httpSource(path, s, keys)
		}
	}
	own := map[string]bool{}
	for _, s := range cfg.Topics.Set().Specs() {
		own[s.Name] = true
	}
	topics := map[string]string{}
	for i, in := range k.Inlets {
		path := index("collector.inlets", i)
		c.sender(path, in.Name, in.Brand, names)
		c.kafkaInlet(path, in.Source().Kafka, own, topics)
	}
	for i, s := range k.Sources {
		if s.KindOrDefault() == KindKafka {
			c.kafkaInlet(s.path(i)+".kafka", s.Kafka, own, topics)
		}
	}
	c.proxies("collector.trusted_proxies", k.TrustedProxies)
	c.want(k.SkewThreshold >= 0, "collector.skew_threshold", "want 0 or more, found %s", k.SkewThreshold)
	c.positive("collector.max_request_bytes", k.MaxRequestBytes)
	c.want(k.MaxEventBytes > 0 && k.MaxEventBytes <= maxEventBytes, "collector.max_event_bytes",
		"want 1 to %d (with its headers an event must fit into 1 MiB: Kafka's default and an item of the spool), found %d", maxEventBytes, k.MaxEventBytes)
	c.positive("collector.max_batch_events", k.MaxBatchEvents)
	c.want(k.MaxInFlightBytes >= k.MaxRequestBytes, "collector.max_in_flight_bytes", "want max_request_bytes (%d) or more, found %d", k.MaxRequestBytes, k.MaxInFlightBytes)
	c.lasts("collector.historical_after", k.HistoricalAfter)
	c.lasts("collector.produce_timeout", k.ProduceTimeout)
	c.spool(k)
	c.want(k.DrainDelay >= 0 && (cfg.Admin.ShutdownTimeout <= 0 || k.DrainDelay <= cfg.Admin.ShutdownTimeout/2), "collector.drain_delay",
		"want 0 to half of admin.shutdown_timeout (%s), found %s", cfg.Admin.ShutdownTimeout, k.DrainDelay)
	c.want(k.UnsubscribeSecret != "", "collector.unsubscribe_secret_file", "want a path")
}

// kafkaInlet checks how a topic is read; topics are those that are read already.
func (c *checker) kafkaInlet(path string, in KafkaInlet, own map[string]bool, topics map[string]string) {
	c.want(in.Topic != "" && topicChars.MatchString(in.Topic) && len(in.Topic) <= maxTopicName, path+".topic", "want the name of a topic, found %q", in.Topic)
	c.want(!own[in.Topic], path+".topic", "%s is Weft's own", in.Topic)
	if other, taken := topics[in.Topic]; in.Topic != "" {
		c.want(!taken, path+".topic", "read by %s already", other)
		topics[in.Topic] = path
	}
	c.mapping(path+".mapping", in.Mapping)
	c.inletFormat(path, in)
	c.registry(path+".registry", in.Registry)
}

// inletFormat checks what belongs together; whether expressions can be read is for package inlet to say.
func (c *checker) inletFormat(path string, in KafkaInlet) {
	c.oneOf(path+".format", in.Format, append([]string{""}, Formats...)...)
	c.oneOf(path+".preset", in.Preset, append([]string{""}, Presets...)...)
	c.oneOf(path+".dead_letter", in.DeadLetter, "", DeadLetterReject, DeadLetterDrop, DeadLetterStop)
	isCSV := in.Format == FormatCSV
	c.want(isCSV == (len(in.CSV.Columns) > 0), path+".csv.columns", "belongs to format csv, which needs it")
	c.want(isCSV || in.CSV.Separator == "" && len(in.CSV.Numbers) == 0, path+".csv", "is for format csv")
	framed := in.Format == FormatAvro || in.Format == FormatJSONSchema
	c.want(!framed || in.Registry.URL != "", path+".registry.url", "format %s needs it", in.Format)
	c.want(framed || in.Format == FormatDebezium || unset(reflect.ValueOf(in.Registry)), path+".registry", "is for formats avro, jsonschema and debezium")
	if in.Time != "" {
		c.origins(path, "time", in.Time)
	}
}

func (c *checker) registry(path string, r SchemaRegistry) {
	if unset(reflect.ValueOf(r)) {
		return
	}
	c.httpURL(path+".url", r.URL)
	c.want((r.Username == "") == (r.PasswordFile == ""), path+".password_file", "username and password_file belong together")
	c.want(r.TokenFile == "" || r.Username == "", path+".token_file", "give either a token or a user name")
	c.tls(path+".tls", r.TLS)
	c.want(r.Timeout >= 0, path+".timeout", "want a duration of 0 or more, found %s", formatDuration(r.Timeout))
}

// key notes a write key, and a fault if another source has it.
func (c *checker) key(path, key string, keys map[[32]byte]string) {
	if key != "" {
		c.keyHash(path, sha256.Sum256([]byte(key)), keys)
	}
}

func (c *checker) keyHash(path string, sum [32]byte, keys map[[32]byte]string) {
	other, taken := keys[sum]
	c.want(!taken, path, "the same key as that of %s", other)
	keys[sum] = path
}

// minSpoolBytes is the smallest spool: it must hold some full requests.
const minSpoolBytes = 64 << 20

func (c *checker) spool(k Collector) {
	if k.SpoolMaxBytes == 0 {
		return
	}
	c.want(k.SpoolMaxBytes >= minSpoolBytes, "collector.spool_max_bytes", "want 0 (no spool) or %d or more, found %d", minSpoolBytes, k.SpoolMaxBytes)
	c.want(k.SpoolDir != "", "collector.spool_dir", "want a path")
	c.lasts("collector.spool_after", k.SpoolAfter)
	c.want(k.ProduceTimeout <= 0 || k.SpoolAfter < k.ProduceTimeout, "collector.spool_after", "want less than produce_timeout (%s), found %s", k.ProduceTimeout, k.SpoolAfter)
}

func (c *checker) sender(path, name, brand string, names map[string]string) {
	c.want(plainName.MatchString(name), path+".name", "want 1 to 64 letters, digits and . _ -, found %q", name)
	if other, taken := names[name]; name != "" {
		c.want(!taken, path+".name", "%q is the name of %s", name, other)
		names[name] = path
	}
	c.brand(path+".brand", brand, false)
}

func (c *checker) brand(path, brand string, required bool) {
	c.want(brand == "" && !required || plainName.MatchString(brand), path, "want 1 to 64 letters, digits and . _ -, found %q", brand)
}

// mapping checks the outer form only; the collector reads the paths.
func (c *checker) mapping(path string, m map[string]string) {
	for _, field := range slices.Sorted(maps.Keys(m)) {
		c.origins(path, field, m[field])
	}
}

// origins checks the outer form of where the value of a field comes from.
func (c *checker) origins(path, field, from string) {
	quoted := len(from) >= 2 && (from[0] == '\'' || from[0] == '"') && from[len(from)-1] == from[0]
	c.want(field != "" && (quoted || strings.HasPrefix(from, "$") || strings.HasPrefix(from, "=")), join(path, field),
		"want a path such as $.sale.id, a literal in quotes such as \"'Order Completed'\", or an expression such as = record.total, found %q", from)
}

func (c *checker) stages(cfg Config) {
	c.lasts("stitcher.duplicate_window", cfg.Stitcher.DuplicateWindow)
	c.want(cfg.Stitcher.CacheEntries >= 0, "stitcher.cache_entries", "want 0 or more, found %d", cfg.Stitcher.CacheEntries)
	c.batch("stitcher.batch_records", cfg.Stitcher.BatchRecords)

	c.listens("builder.listen", cfg.Builder.Listen)
	for path, keys := range map[string][]string{"builder.access_keys": cfg.Builder.AccessKeys, "builder.admin_keys": cfg.Builder.AdminKeys} {
		for i, key := range keys {
			c.want(key != "" && !strings.ContainsAny(key, " \t\r\n"), index(path, i), "want a key without white space")
		}
	}
	c.batch("builder.batch_records", cfg.Builder.BatchRecords)

	c.positive("writer.batch_rows", cfg.Writer.BatchRows)
	c.lasts("writer.flush_interval", cfg.Writer.FlushInterval)
	c.lasts("writer.insert_timeout", cfg.Writer.InsertTimeout)
}

// maxBatchRecords bounds a batch: its keys go through one Redis script, which blocks the others for as
// long as it runs (5,000 keys: 85 ms).
const maxBatchRecords = 5000

func (c *checker) batch(path string, n int) {
	c.want(n >= 1 && n <= maxBatchRecords, path, "want 1 to %d, found %d", maxBatchRecords, n)
}

func (c *checker) activator(a Activator) {
	c.want(a.Journeys != "", "activator.journeys", "want a directory")
	c.httpURL("activator.public_url", a.PublicURL)
	c.lasts("activator.fence_poll", a.FencePoll)
	c.batch("activator.batch_records", a.BatchRecords)

	if a.SMTP.Address != "" {
		c.dials("activator.smtp.address", a.SMTP.Address)
	}
	c.want(a.SMTP.Username == "" || a.SMTP.PasswordFile != "", "activator.smtp.password_file", "username needs it")
	c.oneOf("activator.smtp.tls", a.SMTP.TLS, "none", "starttls", "tls")
	c.want(a.SMTP.HELO != "", "activator.smtp.helo", "want a host name")
	c.lasts("activator.smtp.timeout", a.SMTP.Timeout)

	if a.Webhook.URL != "" {
		c.httpURL("activator.webhook.url", a.Webhook.URL)
		c.want(a.Webhook.SecretFile != "", "activator.webhook.secret_file", "url needs it: every request is signed")
		c.want(a.Webhook.AllowPrivate || strings.HasPrefix(a.Webhook.URL, "https:"), "activator.webhook.url",
			"want https (http only with allow_private)")
	}
	c.lasts("activator.webhook.timeout", a.Webhook.Timeout)
}

func (c *checker) httpURL(path, text string) {
	u, err := url.Parse(text)
	c.want(err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.Fragment == "", path,
		"want http://... or https://..., found %q", text)
}

func (c *checker) process(cfg Config) {
	if cfg.Admin.Listen != "" {
		c.listens("admin.listen", cfg.Admin.Listen)
	}
	c.lasts("admin.shutdown_timeout", cfg.Admin.ShutdownTimeout)
	c.endsInTime("activator.smtp.timeout", cfg.Activator.SMTP.Address, cfg.Activator.SMTP.Timeout, cfg.Admin.ShutdownTimeout)
	c.endsInTime("activator.webhook.timeout", cfg.Activator.Webhook.URL, cfg.Activator.Webhook.Timeout, cfg.Admin.ShutdownTimeout)
	c.oneOf("log.level", cfg.Log.Level, "debug", "info", "warn", "error")
	c.oneOf("log.format", cfg.Log.Format, "json", "console")
	c.want(cfg.DataDir != "", "data_dir", "want a directory")
}

// endsInTime checks the time for one message of a channel that is configured: a shutdown that is over before
// the message leaves its fate unknown.
func (c *checker) endsInTime(path, receiver string, message, shutdown time.Duration) {
	c.want(receiver == "" || shutdown <= 0 || message < shutdown, path,
		"want less than admin.shutdown_timeout (%s), found %s: an ordered shutdown must not cut a message off", formatDuration(shutdown), formatDuration(message))
}
