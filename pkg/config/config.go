// Package config is the configuration of every Weft service: defaults in code, one YAML file, the
// environment (WEFT_ plus the path in upper case, dots as underscores), strict.
//
// It owns: the shape of the file, defaults, validation, and printing without secrets. It guarantees that
// every unknown key and bad value is reported with its path, all at once, and that a value from the
// environment wins over the file, which wins over the default. It must not know what a service does with
// its section.
package config

import "time"

// Config is the whole file. The yaml names are the paths in errors and, in upper case with underscores,
// the environment variables: kafka.brokers is WEFT_KAFKA_BROKERS.
type Config struct {
	Kafka      Kafka      `yaml:"kafka" doc:"The Kafka cluster. Empty brokers: 'weft up' and 'weft demo' start one inside the process."`
	Redis      Redis      `yaml:"redis" doc:"Redis or Redis Cluster: identity graph and the state of every stage."`
	ClickHouse ClickHouse `yaml:"clickhouse" doc:"ClickHouse: where the journeys are queried."`
	Topics     Topics     `yaml:"topics" doc:"Names and shapes of the topics that Weft writes."`
	Identity   Identity   `yaml:"identity" doc:"How identifiers are read and joined."`
	Collector  Collector  `yaml:"collector" doc:"The doors: HTTP and Kafka inlets."`
	Stitcher   Stitcher   `yaml:"stitcher" doc:"identity-stitcher: who is this?"`
	Builder    Builder    `yaml:"builder" doc:"profile-builder: profiles, audiences, and the profile API."`
	Activator  Activator  `yaml:"activator" doc:"activator: journeys and the delivery of messages."`
	Writer     Writer     `yaml:"writer" doc:"journey-writer: Kafka to ClickHouse, exactly once."`
	Admin      Admin      `yaml:"admin" doc:"Health, metrics and profiling server of each process."`
	Log        Log        `yaml:"log" doc:"Logging."`
	DataDir    string     `yaml:"data_dir" doc:"Where embedded parts ('weft up') keep their data, and every service the secrets that it makes."`
}

// Kafka is how to reach the brokers.
type Kafka struct {
	Brokers        []string      `yaml:"brokers" doc:"host:port, any number of bootstrap brokers."`
	ClientID       string        `yaml:"client_id" doc:"Client id shown in the brokers' logs and quotas."`
	TLS            TLS           `yaml:"tls" doc:"TLS to the brokers."`
	SASL           SASL          `yaml:"sasl" doc:"SASL log-in to the brokers."`
	InstanceID     string        `yaml:"instance_id" doc:"Name of this process, unique among those that run the same service and the same after a restart (static membership): a restart within session_timeout then moves no partition. Empty: none, a process that ends hands its partitions over at once."`
	SessionTimeout time.Duration `yaml:"session_timeout" doc:"A member silent for this long loses its partitions."`
	RebalanceTime  time.Duration `yaml:"rebalance_timeout" doc:"How long members have to give up partitions when the group changes."`
}

// TLS is a client's side of TLS.
type TLS struct {
	Enabled  bool   `yaml:"enabled" doc:"Use TLS."`
	CAFile   string `yaml:"ca_file" doc:"PEM file of the authority; empty: the system's."`
	CertFile string `yaml:"cert_file" doc:"PEM file of the client certificate, if the server wants one."`
	KeyFile  string `yaml:"key_file" doc:"PEM file of the client key."`
}

// SASL is a log-in to Kafka.
type SASL struct {
	Mechanism    string `yaml:"mechanism" doc:"Empty, plain, scram-sha-256 or scram-sha-512."`
	Username     string `yaml:"username" doc:"User name."`
	PasswordFile string `yaml:"password_file" doc:"File that holds the password."`
}

// Redis is how to reach Redis.
type Redis struct {
	Addresses       []string `yaml:"addresses" doc:"host:port; more than one: Redis Cluster."`
	Username        string   `yaml:"username" doc:"ACL user; empty: default."`
	PasswordFile    string   `yaml:"password_file" doc:"File that holds the password."`
	TLS             TLS      `yaml:"tls" doc:"TLS to Redis."`
	AllowNonDurable bool     `yaml:"allow_non_durable" doc:"Start although Redis may lose an acknowledged write (no 'appendfsync always'). For trying Weft out only."`
}

// ClickHouse is how to reach ClickHouse over its native protocol.
type ClickHouse struct {
	Addresses    []string `yaml:"addresses" doc:"host:port of the native protocol."`
	Database     string   `yaml:"database" doc:"Database that Weft creates its tables in."`
	Username     string   `yaml:"username" doc:"User that may create tables and insert."`
	PasswordFile string   `yaml:"password_file" doc:"File that holds the password."`
	TLS          TLS      `yaml:"tls" doc:"TLS to ClickHouse."`
}

// Topics is the naming and shape of the topics.
type Topics struct {
	Prefix            string        `yaml:"prefix" doc:"Before every topic and consumer group, so that several deployments share a cluster."`
	Partitions        int           `yaml:"partitions" doc:"Partition count of every topic; fixed for a deployment's life."`
	ReplicationFactor int           `yaml:"replication_factor" doc:"Copies of each partition; 3 in production."`
	MinInsyncReplicas int           `yaml:"min_insync_replicas" doc:"Copies that must have a record before it counts as written; 2 in production."`
	Retention         time.Duration `yaml:"retention" doc:"How long records are kept in Kafka."`
}

// Identity is how identifiers are read and joined.
type Identity struct {
	KeyFile       string   `yaml:"key_file" doc:"Secret of 32 bytes (hex) that identifier hashes are keyed with; made at the first start, in data_dir unless set. Every service needs the same file."`
	DefaultRegion string   `yaml:"default_region" doc:"ISO country whose phone numbers may stand without +country, such as PL; empty: such numbers are taken as they stand."`
	RulesFile     string   `yaml:"rules_file" doc:"YAML file of identifier types: where they stand in events, how they are written, and how far they may join people (docs/identity.md). Every service needs the same file. Empty: the shipped rules, schemas/identity/rules.yaml."`
	Claims        string   `yaml:"claims" doc:"What a source that is not trusted may say of a user id, e-mail or phone that was never linked. new: whoever names it first has it; never: such a source joins no two known identifiers at all."`
	Governor      Governor `yaml:"governor" doc:"Caps. A link beyond one is suspended: the event is resolved without it, and the pair is published on identities.linked."`
}

// Governor caps what may become one person, and how fast.
type Governor struct {
	MembersPerPerson         int `yaml:"members_per_person" doc:"Identifiers of one person; 0: any number."`
	MergesPerPerson          int `yaml:"merges_per_person" doc:"Merges behind one person of people who had several identifiers already; 0: any number."`
	LinksPerIdentifier       int `yaml:"links_per_identifier" doc:"Links that name one identifier, at most 256; 0: any number."`
	MergesPerMinute          int `yaml:"merges_per_minute" doc:"Merges of people who had several identifiers already, by the minute in which their events were received, in each identity-stitcher; 0: any number."`
	MergesPerMinutePerSource int `yaml:"merges_per_minute_per_source" doc:"The same, of one source."`
}

// Collector is the doors.
type Collector struct {
	Listen            string        `yaml:"listen" doc:"Address of the HTTP door."`
	Sources           []Source      `yaml:"sources" doc:"Who may send."`
	SourcesDir        string        `yaml:"sources_dir" doc:"Directory of more sources, one per file (*.yaml) with the keys of an entry of sources. Empty: none."`
	Inlets            []Inlet       `yaml:"inlets" doc:"Kafka topics of yours that become events. The inbox (PREFIX+events.inbox, Segment-shaped JSON) is always one of them."`
	MaxRequestBytes   int           `yaml:"max_request_bytes" doc:"Largest request after decompression."`
	MaxEventBytes     int           `yaml:"max_event_bytes" doc:"Largest single event, at most 1000000; larger ones go to events.rejected."`
	MaxBatchEvents    int           `yaml:"max_batch_events" doc:"Most events in one batch call."`
	MaxInFlightBytes  int           `yaml:"max_in_flight_bytes" doc:"Request bytes held in memory at once; beyond it the door answers 503."`
	TrustedProxies    []string      `yaml:"trusted_proxies" doc:"Networks (10.0.0.0/8) and addresses of your load balancers: their X-Forwarded-For says whose request it is. Empty: the other end of the connection is the client."`
	SkewThreshold     time.Duration `yaml:"skew_threshold" doc:"A browser's or app's clock is corrected if it is off by more. 0: never."`
	HistoricalAfter   time.Duration `yaml:"historical_after" doc:"Events older than this when received are historical: they count, but trigger no message."`
	ProduceTimeout    time.Duration `yaml:"produce_timeout" doc:"How long a request waits for Kafka before it is answered 503."`
	SpoolDir          string        `yaml:"spool_dir" doc:"Directory on a disk that survives the process, where events are kept that Kafka does not take in time; in data_dir unless set. Each process takes a directory of its own below it. It needs Redis."`
	SpoolMaxBytes     int           `yaml:"spool_max_bytes" doc:"What the spool of a process may take on the disk; beyond it the door answers 503. 0: no spool, the door answers 503 while Kafka is away."`
	SpoolAfter        time.Duration `yaml:"spool_after" doc:"How long a request waits for Kafka before its events are spooled."`
	DrainDelay        time.Duration `yaml:"drain_delay" doc:"At shutdown, how long the HTTP door goes on taking requests after /readyz has turned 503: as long as your load balancer needs to see it. At most half of admin.shutdown_timeout, which is the default where that is less. 'weft up' and 'weft demo' have 0 unless it is set: they are alone."`
	UnsubscribeSecret string        `yaml:"unsubscribe_secret_file" doc:"Secret of 32 bytes (hex) that signs unsubscribe links; made at the first start, in data_dir unless set. Collector and activator need the same file."`
	SuppressionFile   string        `yaml:"suppression_file" doc:"Identifiers of people whose events are counted and not stored: one per line, as it stands in events or as sha256: and the hash of its lower case; read again when it changes. Empty: none."`
	Brand             string        `yaml:"default_brand" doc:"Brand of sources and inlets that name none."`
}

// Inlet maps the JSON records of one Kafka topic to events.
type Inlet struct {
	Name       string            `yaml:"name" doc:"Name of the source; stands on every event."`
	Topic      string            `yaml:"topic" doc:"Topic to read, without prefix: it is yours."`
	Brand      string            `yaml:"brand" doc:"Brand of its events."`
	Trusted    bool              `yaml:"trusted" doc:"Carried on every event, as for collector.sources."`
	Historical bool              `yaml:"historical" doc:"All its events are historical."`
	Mapping    map[string]string `yaml:"mapping" doc:"Event field (userId, event, timestamp, properties.total, ...) to where it stands in the record: a path such as $.sale.id, a literal in quotes, or an expression such as = record.cents / 100. Empty: the record is a Segment-shaped event."`
}

// Stitcher is identity-stitcher.
type Stitcher struct {
	DuplicateWindow time.Duration `yaml:"duplicate_window" doc:"How long a message id is remembered per source."`
	CacheEntries    int           `yaml:"cache_entries" doc:"Identifiers whose profile is kept in memory."`
	BatchRecords    int           `yaml:"batch_records" doc:"Most records per batch."`
}

// Builder is profile-builder.
type Builder struct {
	Listen        string   `yaml:"listen" doc:"Address of the profile API."`
	AccessKeys    []string `yaml:"access_keys" secret:"true" doc:"Keys that may read profiles (Authorization: Bearer KEY). Empty: nobody may."`
	AdminKeys     []string `yaml:"admin_keys" secret:"true" doc:"Keys that may ask who somebody is, and why (/v1/identity/). The answers hold all identifiers of a person. Empty: nobody may."`
	AudiencesFile string   `yaml:"audiences_file" doc:"YAML file of audiences; empty: the shipped example."`
	BrandTraits   []string `yaml:"brand_traits" doc:"Traits kept per brand instead of once per person."`
	BatchRecords  int      `yaml:"batch_records" doc:"Most records per batch."`
}

// Activator is journeys and delivery.
type Activator struct {
	Journeys        string        `yaml:"journeys" doc:"Directory of journey files (*.yaml); read again when one changes."`
	SuppressionFile string        `yaml:"suppression_file" doc:"Addresses that are never written to, one per line; read again when it changes."`
	PublicURL       string        `yaml:"public_url" doc:"Where the collector's HTTP door is reached from outside: unsubscribe links begin with it."`
	SMTP            SMTP          `yaml:"smtp" doc:"Delivery of e-mail."`
	Webhook         Webhook       `yaml:"webhook" doc:"Delivery to a webhook of yours."`
	FencePoll       time.Duration `yaml:"fence_poll" doc:"Pause between looks at Kafka and Redis while a timer waits behind the fence."`
	BatchRecords    int           `yaml:"batch_records" doc:"Most records per batch."`
}

// SMTP is a mail server to hand mail to.
type SMTP struct {
	Address      string        `yaml:"address" doc:"host:port of the mail server; empty: e-mail is not sent, and receipts say so."`
	Username     string        `yaml:"username" doc:"User name, if it wants one."`
	PasswordFile string        `yaml:"password_file" doc:"File that holds the password."`
	TLS          string        `yaml:"tls" doc:"none, starttls or tls."`
	HELO         string        `yaml:"helo" doc:"Our own host name as told to the mail server."`
	Timeout      time.Duration `yaml:"timeout" doc:"For one message; below admin.shutdown_timeout, so that an ordered shutdown learns its fate."`
}

// Webhook is a receiver of messages over HTTP.
type Webhook struct {
	URL          string        `yaml:"url" doc:"https://... that takes messages of channel 'webhook'; empty: none is sent."`
	SecretFile   string        `yaml:"secret_file" doc:"File that holds the secret that signs each request (HMAC-SHA256)."`
	Timeout      time.Duration `yaml:"timeout" doc:"For one request; below admin.shutdown_timeout."`
	AllowPrivate bool          `yaml:"allow_private" doc:"Allow loopback and private addresses as receivers."`
}

// Writer is journey-writer.
type Writer struct {
	BatchRows     int           `yaml:"batch_rows" doc:"Most rows per insert."`
	FlushInterval time.Duration `yaml:"flush_interval" doc:"Longest wait before rows are inserted."`
	InsertTimeout time.Duration `yaml:"insert_timeout" doc:"Server-side limit of one insert."`
}

// Admin is the admin server.
type Admin struct {
	Listen          string        `yaml:"listen" doc:"Address of /healthz, /readyz, /metrics and /debug/pprof; empty: none."`
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout" doc:"Deadline of each phase of an ordered shutdown."`
}

// Log is logging.
type Log struct {
	Level  string `yaml:"level" doc:"debug, info, warn or error."`
	Format string `yaml:"format" doc:"json or console."`
}

// Defaults are the values without file and environment.
func Defaults() Config {
	return Config{
		Kafka:      Kafka{ClientID: "weft", SessionTimeout: 10 * time.Second, RebalanceTime: 10 * time.Second},
		ClickHouse: ClickHouse{Database: "weft", Username: "default"},
		Topics:     Topics{Prefix: "weft.", Partitions: 12, ReplicationFactor: 1, MinInsyncReplicas: 1, Retention: 7 * 24 * time.Hour},
		Identity: Identity{
			KeyFile: "weft-data/identity.key", Claims: "new",
			// The first two are Segment's. A person of a hundred identifiers is a constant, not a person. The rates are far
			// above what a shop of ten million customers sees on its busiest day, and below what a loop can do.
			Governor: Governor{MembersPerPerson: 1000, MergesPerPerson: 100, LinksPerIdentifier: 100, MergesPerMinute: 60_000, MergesPerMinutePerSource: 30_000},
		},
		Collector: Collector{ //nolint:gosec // the name of a file, no secret
			Listen:            "127.0.0.1:8080",
			MaxRequestBytes:   4 << 20, // SDKs were seen to send 2 MB decompressed (features 5.9)
			MaxEventBytes:     900_000, // below Kafka's default max.message.bytes of 1 MiB, headers included
			MaxBatchEvents:    2500,    // Segment's limit
			MaxInFlightBytes:  256 << 20,
			SkewThreshold:     time.Minute,     // above what networks and queues add to a request (features 5.6)
			HistoricalAfter:   72 * time.Hour,  // first activation looks back at most three days (features 4.2)
			ProduceTimeout:    8 * time.Second, // below the 10 s after which SDKs give up waiting
			SpoolDir:          "weft-data/spool",
			SpoolMaxBytes:     4 << 30,         // an hour and more at 1,000 events of 1 kB a second
			DrainDelay:        3 * time.Second, // a look every second, two that fail, and a little
			SpoolAfter:        time.Second,     // some SDKs lose data after two seconds without an answer of success (features 5.9)
			UnsubscribeSecret: "weft-data/unsubscribe.key",
			Brand:             "main",
		},
		Stitcher: Stitcher{DuplicateWindow: 7 * 24 * time.Hour, CacheEntries: 200_000, BatchRecords: 500},
		Builder:  Builder{Listen: "127.0.0.1:8081", BatchRecords: 500},
		Activator: Activator{
			Journeys: "schemas/journeys", PublicURL: "http://127.0.0.1:8080", FencePoll: 25 * time.Millisecond, BatchRecords: 500,
			SMTP:    SMTP{TLS: "starttls", HELO: "localhost", Timeout: 10 * time.Second},
			Webhook: Webhook{Timeout: 10 * time.Second},
		},
		Writer:  Writer{BatchRows: 50_000, FlushInterval: time.Second, InsertTimeout: 30 * time.Second},
		Admin:   Admin{Listen: "127.0.0.1:8090", ShutdownTimeout: 15 * time.Second},
		Log:     Log{Level: "info", Format: "json"},
		DataDir: "weft-data",
	}
}
