package config

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/topic"
)

// Source is one sender: over HTTP, or a Kafka topic. It stands in collector.sources or in a file of its own.
type Source struct {
	Name            string           `yaml:"name" doc:"Name of the source; stands on every event."`
	Kind            string           `yaml:"kind" doc:"browser, app, server, webhook or kafka. Empty: server if trusted, else browser."`
	WriteKey        string           `yaml:"write_key" secret:"true" doc:"Key that SDKs send. Kept as a hash in memory; to keep it out of this file too, give write_key_hashes instead."`
	WriteKeyHashes  []string         `yaml:"write_key_hashes" doc:"Hashes of keys that SDKs send, each 'sha256:' and the output of 'printf %s KEY | sha256sum'. Several keys are valid at once, so that one can be replaced."`
	Brand           string           `yaml:"brand" doc:"Brand of its events."`
	Trusted         bool             `yaml:"trusted" doc:"Carried on every event; set it for servers, not for browsers and apps that anybody can read the key of. Later versions let only trusted sources join two known people; this one does not judge yet."`
	Historical      bool             `yaml:"historical" doc:"All its events are historical, as of an import."`
	Disabled        bool             `yaml:"disabled" doc:"Its keys are answered 404 and nothing is taken; its topic is not read."`
	Mode            string           `yaml:"mode" doc:"compatible: answers as Segment gives them, so that its SDKs lose nothing. strict: the codes that say more, for senders of yours that read them. docs/http.md has both side by side."`
	Origins         []string         `yaml:"origins" doc:"Pages that may send with its key, such as https://shop.example or https://*.shop.example. Empty: any. Browsers only say where they are, so this keeps honest pages apart, not forgers out."`
	Rate            SourceRate       `yaml:"rate" doc:"How many events it may send; beyond it the door answers 429 with Retry-After."`
	MaxRequestBytes int              `yaml:"max_request_bytes" doc:"Largest request after decompression, at most collector.max_request_bytes. 0: that."`
	MaxEventBytes   int              `yaml:"max_event_bytes" doc:"Largest single event, at most collector.max_event_bytes. 0: that."`
	Plan            string           `yaml:"plan" doc:"Tracking plan: a file that says which events the source sends and what they look like (docs/quality.md). Empty: none."`
	Transformations []Transformation `yaml:"transformations" doc:"What is done to its events, in this order, before anything else: docs/quality.md."`
	IP              string           `yaml:"ip" doc:"What is kept of context.ip, which is set from the connection for browsers and apps: keep, truncate (IPv4 to /24, IPv6 to /48) or drop. Empty: keep."`
	Bots            string           `yaml:"bots" doc:"Events of programs, by their user agent: flag (flags has 'bot'), refuse (to events.rejected) or ignore. Empty: flag."`
	Consent         SourceConsent    `yaml:"consent" doc:"Which events may be stored, by the consent that they carry: docs/sources.md."`
	Webhook         SourceWebhook    `yaml:"webhook" doc:"Of kind webhook: who sends it to POST /v1/hooks/NAME, and how it is proven."`
	Kafka           KafkaInlet       `yaml:"kafka" doc:"Of kind kafka: the topic, and how its records become events."`

	// File is where the source was read from; empty if it stands in collector.sources or was made in code.
	File string `yaml:"-"`
}

// SourceRate bounds the events of a source.
type SourceRate struct {
	EventsPerSecond int `yaml:"events_per_second" doc:"Events per second in the long run, in each collector process. 0: no limit."`
	Burst           int `yaml:"burst" doc:"Events at once, after a pause. 0: as many as in one second."`
}

// KafkaInlet says how the records of one topic become events.
type KafkaInlet struct {
	Topic      string            `yaml:"topic" doc:"Topic to read, without prefix: it is yours."`
	Format     string            `yaml:"format" doc:"json, debezium, avro, jsonschema or csv. Empty: json."`
	Preset     string            `yaml:"preset" doc:"A ready mapping: till_sale, crm_contact, erp_order, loyalty_points or ad_cost. Fields of mapping take the place of its fields."`
	Mapping    map[string]string `yaml:"mapping" doc:"As for collector.inlets. Empty, and no preset: the record is a Segment-shaped event."`
	When       string            `yaml:"when" doc:"Expression: records for which it is not true are skipped and counted, such as op != \"d\". Empty: none."`
	Key        string            `yaml:"key" doc:"Expression for the key on events.collected: events of one key stay in order. Empty: the event's anonymousId, userId or external id."`
	Time       string            `yaml:"time" doc:"When it happened: a path or an expression, as in mapping. Empty: mapping.timestamp; of Debezium the time of the change."`
	CSV        CSVLines          `yaml:"csv" doc:"Of format csv: the columns."`
	Registry   SchemaRegistry    `yaml:"registry" doc:"Of format avro and jsonschema, and of debezium if its records are Avro: the schema registry."`
	DeadLetter string            `yaml:"dead_letter" doc:"What becomes of a record that cannot be an event. reject: it goes to events.rejected with the reason. drop: it is counted only. stop: the source stops until it is restarted. Empty: reject."`
}

// CSVLines says what stands in a line.
type CSVLines struct {
	Columns   []string `yaml:"columns" doc:"Names of the columns, in order; a record is one line without a header."`
	Separator string   `yaml:"separator" doc:"Character between columns. Empty: a comma."`
	Numbers   []string `yaml:"numbers" doc:"Columns that are JSON numbers; the others are texts. An empty column is null."`
}

// SchemaRegistry is how to reach a schema registry with Confluent's API.
type SchemaRegistry struct {
	URL          string        `yaml:"url" doc:"http://... or https://... of the registry."`
	Username     string        `yaml:"username" doc:"User name, if it wants one."`
	PasswordFile string        `yaml:"password_file" doc:"File that holds the password."`
	TokenFile    string        `yaml:"token_file" doc:"File that holds a token (Authorization: Bearer), instead of a user name."`
	TLS          TLS           `yaml:"tls" doc:"Files for TLS to the registry; for https:// without files of your own nothing is needed."`
	Timeout      time.Duration `yaml:"timeout" doc:"For one request. 0: 5s. A registry that does not answer holds the partition; nothing is rejected for it."`
}

// Formats of records.
const (
	FormatJSON       = "json"
	FormatDebezium   = "debezium"
	FormatAvro       = "avro"
	FormatJSONSchema = "jsonschema"
	FormatCSV        = "csv"
)

// Formats are all of them.
var Formats = []string{FormatJSON, FormatDebezium, FormatAvro, FormatJSONSchema, FormatCSV}

// Presets are the names of the ready mappings.
var Presets = []string{"till_sale", "crm_contact", "erp_order", "loyalty_points", "ad_cost"}

// What becomes of records that cannot be events.
const (
	DeadLetterReject = "reject"
	DeadLetterDrop   = "drop"
	DeadLetterStop   = "stop"
)

// Kinds of sources.
const (
	KindBrowser = "browser"
	KindApp     = "app"
	KindServer  = "server"
	KindWebhook = "webhook"
	KindKafka   = "kafka"
)

// Modes of a source: how the HTTP door answers it.
const (
	ModeCompatible = "compatible"
	ModeStrict     = "strict"
)

// KindOrDefault is the kind, found by trust if none is given.
func (s Source) KindOrDefault() string {
	switch {
	case s.Kind != "":
		return s.Kind
	case s.Trusted:
		return KindServer
	}
	return KindBrowser
}

// Source is the inlet as a source of kind kafka.
func (in Inlet) Source() Source {
	return Source{
		Name: in.Name, Kind: KindKafka, Brand: in.Brand, Trusted: in.Trusted, Historical: in.Historical,
		Kafka: KafkaInlet{Topic: in.Topic, Mapping: in.Mapping},
	}
}

// KafkaSources are all sources that read a topic of the operator's: collector.inlets, then those of kind kafka.
// Disabled ones are left out.
func (c Collector) KafkaSources() []Source {
	var list []Source
	for _, in := range c.Inlets {
		list = append(list, in.Source())
	}
	for _, s := range c.Sources {
		if s.KindOrDefault() == KindKafka && !s.Disabled {
			list = append(list, s)
		}
	}
	return list
}

// headerRoom is what a record may have beside an event: its headers, its key, and the batch around it. An error's text,
// ids of MaxIDBytes and a source position come to a tenth of it.
const headerRoom = 48 << 10

// TopicSpecs are the topics of Weft, such that an event of collector.max_event_bytes fits into each.
func (c Config) TopicSpecs() []topic.Spec {
	specs := c.Topics.Set().Specs()
	for i := range specs {
		specs[i].RecordBytes = c.Collector.MaxEventBytes + headerRoom
	}
	return specs
}

// hashPrefix names the function of a key's hash.
const hashPrefix = "sha256:"

// ParseKeyHash reads one of Source.WriteKeyHashes.
func ParseKeyHash(text string) ([32]byte, error) {
	var sum [32]byte
	digits, ok := strings.CutPrefix(text, hashPrefix)
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != len(sum) {
		return sum, fmt.Errorf("want %q and %d hexadecimal digits", hashPrefix, 2*len(sum))
	}
	copy(sum[:], b)
	return sum, nil
}

// LoadSource reads and checks one source in a file of its own, as Load does for collector.sources_dir. Its error is Faults
// if the content is at fault.
func LoadSource(file string) (Source, error) {
	l := loader{origin: map[string]string{}}
	s, err := l.source(file)
	if err != nil {
		return Source{}, err
	}
	cfg := Defaults()
	cfg.Collector.Sources = []Source{s}
	var c checker
	c.collector(cfg)
	l.add(c.faults)
	return s, l.faults.err()
}

// source reads one file; what is wrong in it is noted, the error is that it cannot be read.
func (l *loader) source(file string) (Source, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the path is the operator's
	if err != nil {
		return Source{}, fmt.Errorf("read source: %w", err)
	}
	outer := l.file
	defer func() { l.file = outer }()
	l.file = file
	s := Source{File: file}
	path := s.path(0)
	l.origin[path] = file
	l.yaml(path, text, reflect.ValueOf(&s).Elem())
	return s, nil
}

// sources adds those of collector.sources_dir to cfg, by the order of their files' names.
func (l *loader) sources(cfg *Config) {
	dir := cfg.Collector.SourcesDir
	if dir == "" {
		return
	}
	const key = "collector.sources_dir"
	entries, err := os.ReadDir(dir)
	if err != nil {
		l.faults = append(l.faults, Fault{key, l.origin[key], err.Error()})
		return
	}
	// A copy: the configuration may be loaded with a list of somebody else's.
	cfg.Collector.Sources = slices.Clone(cfg.Collector.Sources)
	for _, e := range entries {
		// Names with a dot in front are an editor's, or the links of a Kubernetes volume.
		if strings.HasPrefix(e.Name(), ".") || filepath.Ext(e.Name()) != ".yaml" {
			continue
		}
		s, err := l.source(filepath.Join(dir, e.Name()))
		if err != nil {
			l.faults = append(l.faults, Fault{key, l.origin[key], err.Error()})
			continue
		}
		cfg.Collector.Sources = append(cfg.Collector.Sources, s)
	}
}

// path is what faults call the source: i is its place in collector.sources.
func (s Source) path(i int) string {
	if s.File != "" {
		return "collector.sources_dir[" + filepath.Base(s.File) + "]"
	}
	return index("collector.sources", i)
}

// httpSource checks what a source needs that sends over HTTP; keys are those known so far, by hash.
func (c *checker) httpSource(path string, s Source, keys map[[32]byte]string) {
	c.want(s.WriteKey != "" || len(s.WriteKeyHashes) > 0, path+".write_key", "want a key, or write_key_hashes")
	c.want(s.WriteKey == strings.TrimSpace(s.WriteKey) && !strings.Contains(s.WriteKey, ":"), path+".write_key",
		"want a key without a colon or white space around it (SDKs send it as the user name of HTTP Basic)")
	c.key(path+".write_key", s.WriteKey, keys)
	for i, text := range s.WriteKeyHashes {
		p := index(path+".write_key_hashes", i)
		sum, err := ParseKeyHash(text)
		if err != nil {
			c.want(false, p, "%s", err)
			continue
		}
		c.keyHash(p, sum, keys)
	}
	c.want(unset(reflect.ValueOf(s.Kafka)), path+".kafka", "is for kind kafka only")
}

// kafkaSource checks what must not be with a source of kind kafka; its topic is checked with the inlets'.
func (c *checker) kafkaSource(path string, s Source) {
	c.want(s.WriteKey == "" && len(s.WriteKeyHashes) == 0, path+".write_key", "a source of kind kafka has none")
	c.want(len(s.Origins) == 0, path+".origins", "a source of kind kafka has none")
	c.want(s.Rate == SourceRate{}, path+".rate", "is for HTTP: a topic is read as fast as it can be")
	c.want(s.MaxRequestBytes == 0, path+".max_request_bytes", "is for HTTP")
}

// sourceLimits checks the rest.
func (c *checker) sourceLimits(path string, s Source, k Collector) {
	c.oneOf(path+".kind", s.KindOrDefault(), KindBrowser, KindApp, KindServer, KindWebhook, KindKafka)
	c.want(!s.Trusted || s.Kind != KindBrowser && s.Kind != KindApp, path+".trusted",
		"a %s's key can be read by anybody, so nothing that it sends can be trusted", s.Kind)
	c.sourcePrivacy(path, s)
	c.want(s.KindOrDefault() == KindWebhook || s.Webhook.isZero(), path+".webhook", "is for kind webhook only")
	c.oneOf(path+".mode", s.Mode, "", ModeCompatible, ModeStrict)
	c.transformations(path+".transformations", s.Transformations)
	for i, origin := range s.Origins {
		c.origin(index(path+".origins", i), origin)
	}
	c.want(s.Rate.EventsPerSecond >= 0, path+".rate.events_per_second", "want 0 or more, found %d", s.Rate.EventsPerSecond)
	c.want(s.Rate.Burst >= 0, path+".rate.burst", "want 0 or more, found %d", s.Rate.Burst)
	c.want(s.Rate.Burst == 0 || s.Rate.EventsPerSecond > 0, path+".rate.burst", "needs events_per_second")
	c.want(s.MaxRequestBytes >= 0 && s.MaxRequestBytes <= k.MaxRequestBytes, path+".max_request_bytes",
		"want 0 to collector.max_request_bytes (%d), found %d", k.MaxRequestBytes, s.MaxRequestBytes)
	c.want(s.MaxEventBytes >= 0 && s.MaxEventBytes <= k.MaxEventBytes, path+".max_event_bytes",
		"want 0 to collector.max_event_bytes (%d), found %d", k.MaxEventBytes, s.MaxEventBytes)
}

// origin checks scheme://host[:port], where the host may begin with "*.".
func (c *checker) origin(path, text string) {
	u, err := url.Parse(strings.Replace(text, "://*.", "://any.", 1))
	c.want(err == nil && u.Scheme != "" && u.Host != "" && u.Scheme+"://"+u.Host == strings.Replace(text, "://*.", "://any.", 1) && !strings.Contains(u.Host, "*"),
		path, "want a page's origin such as https://shop.example or https://*.shop.example, without a path, found %q", text)
}

// unset says that nothing is given: an empty list, as in the example file, is nothing.
func unset(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if !unset(v.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	}
	return v.IsZero()
}
