// Package schemas holds the JSON Schema (draft 2020-12) of every topic, and checks records against them.
//
// TOPIC.schema.json describes the value of the topic's records; its $defs "key" and "headers" describe the key
// and the weft- headers, and "x-topic" says who writes it, under which key and cleanup policy. What Weft
// itself writes may have no member that the schema does not name; the bodies of events may, because people
// extend them. headers.schema.json and event.schema.json are shared by several topics.
//
// It owns: the schemas, and Set, which compiles them. It guarantees that a record which Check accepts is one
// that the page of its topic promises. It is used by tests, to hold the services to what they publish, and may
// be by anybody who reads or writes the topics. It must not know how a service makes its records: no package of
// Weft is imported here.
package schemas

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Files are the schemas, by file name.
//
//go:embed *.schema.json
var Files embed.FS

const (
	suffix = ".schema.json"
	// base is what the $id of every schema begins with.
	base = "https://github.com/weft-cdp/weft/schemas/"
	// headerKind is the header that says what a record of a topic with several kinds is.
	headerKind = "weft-kind"
	// maxFaults bounds the faults that CheckAll tells: the first of them say it.
	maxFaults = 20
)

// Header is one header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Record is one record as it stands in Kafka.
type Record struct {
	Topic      string // without the deployment's prefix: events.identified
	Key, Value []byte // nil: none
	Headers    []Header
	Place      string // where it was found, such as partition:offset; only to name it in errors
}

// About is what "x-topic" of a schema says of its topic.
type About struct {
	Key       string   `json:"key"`       // what the key is, in words
	Writers   []string `json:"writers"`   // stages
	Cleanup   string   `json:"cleanup"`   // delete or compact
	Tombstone bool     `json:"tombstone"` // a record may have no value
	AnyBytes  bool     `json:"anyBytes"`  // the value may be anything
	Version   int      `json:"version"`
}

// topicSchema is one topic's schemas, compiled.
type topicSchema struct {
	about               About
	key, headers, value *jsonschema.Schema
	kinds               map[string]*jsonschema.Schema // of the value, for topics with several kinds
}

// Set is all schemas, compiled. It is never changed and safe for concurrent use.
type Set struct {
	topics map[string]*topicSchema
}

// New compiles the schemas.
func New() (*Set, error) {
	c := jsonschema.NewCompiler()
	names, err := fs.Glob(Files, "*"+suffix)
	if err != nil {
		return nil, fmt.Errorf("list schemas: %w", err)
	}
	abouts := map[string]About{}
	for _, name := range names {
		text, err := Files.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read schema: %w", err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("read schema %s: %w", name, err)
		}
		if err := c.AddResource(base+name, doc); err != nil {
			return nil, fmt.Errorf("read schema %s: %w", name, err)
		}
		var head struct {
			About *About `json:"x-topic"`
		}
		if err := json.Unmarshal(text, &head); err != nil {
			return nil, fmt.Errorf("read schema %s: %w", name, err)
		}
		if head.About != nil {
			abouts[strings.TrimSuffix(name, suffix)] = *head.About
		}
	}
	s := &Set{topics: map[string]*topicSchema{}}
	for _, name := range slices.Sorted(maps.Keys(abouts)) {
		if s.topics[name], err = compile(c, name, abouts[name]); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// compile compiles the parts of one topic's schema.
func compile(c *jsonschema.Compiler, name string, about About) (*topicSchema, error) {
	url := base + name + suffix
	t := &topicSchema{about: about, kinds: map[string]*jsonschema.Schema{}}
	for _, part := range []struct {
		to  **jsonschema.Schema
		url string
	}{{&t.value, url}, {&t.key, url + "#/$defs/key"}, {&t.headers, url + "#/$defs/headers"}} {
		var err error
		if *part.to, err = c.Compile(part.url); err != nil {
			return nil, fmt.Errorf("compile schema of %s: %w", name, err)
		}
	}
	if len(t.value.OneOf) == 0 {
		return t, nil
	}
	for _, one := range t.value.OneOf { // each refers to the $defs of a kind
		kind := path.Base(one.Ref.Location)
		var err error
		if t.kinds[kind], err = c.Compile(url + "#/$defs/" + kind); err != nil {
			return nil, fmt.Errorf("compile schema of %s, kind %s: %w", name, kind, err)
		}
	}
	return t, nil
}

// Topics are the topics that have a schema, without prefix, in alphabetical order.
func (s *Set) Topics() []string { return slices.Sorted(maps.Keys(s.topics)) }

// About is what is said of a topic; false: it has no schema.
func (s *Set) About(topic string) (About, bool) {
	t, ok := s.topics[topic]
	if !ok {
		return About{}, false
	}
	return t.about, true
}

// ErrUnknownTopic means that a topic has no schema.
var ErrUnknownTopic = errors.New("topic has no schema")

// Check says what is wrong with a record: nil, or an error that names topic, place and every part that does
// not fit.
func (s *Set) Check(r Record) error {
	t, ok := s.topics[r.Topic]
	if !ok {
		return fmt.Errorf("%w: %s", ErrUnknownTopic, r.Topic)
	}
	headers, err := headerObject(r.Headers)
	errs := []error{err}
	part := func(name string, schema *jsonschema.Schema, instance any) {
		if err := schema.Validate(instance); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	part("headers", t.headers, headers)
	part("key", t.key, text(r.Key))
	kind, _ := headers[headerKind].(string)
	switch {
	case t.about.AnyBytes:
	case r.Value == nil && t.about.Tombstone:
	case r.Value == nil:
		errs = append(errs, errors.New("value: there is none"))
	default:
		schema := t.value
		if byKind := t.kinds[kind]; byKind != nil {
			schema = byKind // says what is wrong, where oneOf would say that neither fits
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(r.Value))
		if err != nil {
			errs = append(errs, fmt.Errorf("value: %w", err))
			break
		}
		part("value", schema, value)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s %s: key %.80q: %w", r.Topic, r.Place, r.Key, err)
	}
	return nil
}

// text is a key as JSON has it.
func text(key []byte) any {
	if key == nil {
		return nil
	}
	return string(key)
}

// headerObject makes one object of headers; a repeated one is a fault, because readers differ in which of
// them they take.
func headerObject(hs []Header) (map[string]any, error) {
	m := make(map[string]any, len(hs))
	var errs []error
	for _, h := range hs {
		if _, twice := m[h.Key]; twice {
			errs = append(errs, fmt.Errorf("headers: %s stands twice", h.Key))
		}
		m[h.Key] = string(h.Value)
	}
	return m, errors.Join(errs...)
}

// CheckAll checks records until records ends or gives an error, and counts those of each topic that fit. The
// error joins the first faults.
func (s *Set) CheckAll(records iter.Seq2[Record, error]) (fit map[string]int, err error) {
	fit = map[string]int{}
	var errs []error
	faults := 0
	for r, err := range records {
		if err != nil {
			errs = append(errs, fmt.Errorf("read records: %w", err))
			break
		}
		if err := s.Check(r); err != nil {
			if faults++; faults <= maxFaults {
				errs = append(errs, err)
			}
			continue
		}
		fit[r.Topic]++
	}
	if faults > maxFaults {
		errs = append(errs, fmt.Errorf("and %d more records do not fit", faults-maxFaults))
	}
	return fit, errors.Join(errs...)
}
