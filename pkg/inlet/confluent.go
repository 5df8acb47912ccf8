package inlet

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twmb/avro"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/inlet/registry"
)

// Confluent's wire format: a zero byte, four bytes of schema id, the value.
// https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
const (
	magic      = 0
	headerSize = 5
)

// confluent reads values in Confluent's wire format. Safe for concurrent use.
type confluent struct {
	schemas *registry.Cache[decoder]
}

// decoder makes JSON of a value by one schema.
type decoder interface {
	json(value []byte) ([]byte, error)
	format() string
}

func newConfluent(c *registry.Client) *confluent {
	if c == nil {
		return nil
	}
	return &confluent{registry.NewCache(c, compileSchema)}
}

// json is the value as JSON text; want is the format it must have, "" for any. The error is an *event.Error, or of
// ErrHeld.
func (c *confluent) json(ctx context.Context, value []byte, want string) ([]byte, error) {
	if len(value) < headerSize || value[0] != magic {
		return nil, &event.Error{Reason: ReasonFormat, Detail: "the record is not in Confluent's wire format: a zero byte and four bytes of schema id"}
	}
	id := binary.BigEndian.Uint32(value[1:headerSize])
	d, err := c.schemas.Get(ctx, id)
	if errors.Is(err, ErrHeld) {
		return nil, err
	}
	if err != nil {
		return nil, &event.Error{Reason: ReasonSchema, Detail: fmt.Sprintf("schema %d: %s", id, err)}
	}
	if want != "" && d.format() != want {
		return nil, &event.Error{Reason: ReasonSchema, Detail: fmt.Sprintf("schema %d is of format %s, the source says %s", id, d.format(), want)}
	}
	text, err := d.json(value[headerSize:])
	if err != nil {
		var known *event.Error
		if errors.As(err, &known) {
			return nil, err
		}
		return nil, &event.Error{Reason: ReasonSchema, Detail: fmt.Sprintf("schema %d: %s", id, err)}
	}
	return text, nil
}

// compileSchema makes the decoder of a schema. Its error is for ever.
func compileSchema(s registry.Schema) (decoder, error) {
	switch s.Type {
	case registry.Avro:
		return compileAvro(s)
	case registry.JSON:
		return compileJSONSchema(s)
	}
	return nil, fmt.Errorf("schemas of type %s cannot be read, only %s and %s", s.Type, registry.Avro, registry.JSON)
}

// avroSchema reads Avro's binary values.
type avroSchema struct{ schema *avro.Schema }

func compileAvro(s registry.Schema) (decoder, error) {
	var cache avro.SchemaCache
	opts := avroTypes()
	for _, ref := range s.References {
		if _, err := cache.Parse(ref.Text, opts...); err != nil {
			return nil, fmt.Errorf("reference %s: %w", ref.Name, err)
		}
	}
	schema, err := cache.Parse(s.Text, opts...)
	if err != nil {
		return nil, err
	}
	return avroSchema{schema}, nil
}

func (a avroSchema) format() string { return config.FormatAvro }

func (a avroSchema) json(value []byte) ([]byte, error) {
	var v any
	rest, err := a.schema.Decode(value, &v, avro.AliasInput())
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes stand behind the value", len(rest))
	}
	text, err := appendAvro(make([]byte, 0, 4*len(value)), v, 0)
	if err != nil {
		return nil, err
	}
	return text, event.CheckJSON(text)
}

// jsonSchema checks JSON text.
type jsonSchema struct{ schema *jsonschema.Schema }

// noSchemas keeps a schema from having others read from files or the network.
type noSchemas struct{}

func (noSchemas) Load(url string) (any, error) {
	return nil, fmt.Errorf("%s is not among the references that the registry has for the schema", url)
}

// schemaURL is where the schema itself stands; its references are resolved against it.
const schemaURL = schemaBase + "schema"

const schemaBase = "registry:///"

func compileJSONSchema(s registry.Schema) (decoder, error) {
	c := jsonschema.NewCompiler()
	c.UseLoader(noSchemas{})
	add := func(url, text string) error {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(text)))
		if err != nil {
			return err
		}
		return c.AddResource(url, doc)
	}
	for _, ref := range s.References {
		url := ref.Name
		if !absolute(url) {
			url = schemaBase + url
		}
		if err := add(url, ref.Text); err != nil {
			return nil, fmt.Errorf("reference %s: %w", ref.Name, err)
		}
	}
	if err := add(schemaURL, s.Text); err != nil {
		return nil, err
	}
	schema, err := c.Compile(schemaURL)
	if err != nil {
		return nil, err
	}
	return jsonSchema{schema}, nil
}

func absolute(url string) bool { return bytes.Contains([]byte(url), []byte(":/")) }

func (j jsonSchema) format() string { return config.FormatJSONSchema }

func (j jsonSchema) json(value []byte) ([]byte, error) {
	if err := event.CheckJSON(value); err != nil {
		return nil, err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	if err != nil {
		return nil, err
	}
	if err := j.schema.Validate(v); err != nil {
		return nil, err
	}
	return value, nil
}
