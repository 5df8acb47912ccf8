package config

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// hidden stands where Print leaves a secret out.
const hidden = "***"

// commentWidth is where comments of the example are wrapped.
const commentWidth = 96

// Print is the effective configuration as YAML that Load reads back, but for the secrets: those that are
// set are shown as "***".
func Print(cfg Config) ([]byte, error) {
	if slices.ContainsFunc(cfg.Collector.Sources, func(s Source) bool { return s.File != "" }) {
		cfg.Collector.SourcesDir = "" // its sources are shown, and would be there twice
	}
	return render(printer{}, cfg)
}

// Example is the configuration file that documents itself: every key with its default and what it means,
// and a sample of sources and of an inlet.
func Example() ([]byte, error) {
	cfg := Defaults()
	cfg.Collector.Sources, cfg.Collector.Inlets = sampleSources(), sampleInlets()
	out, err := render(printer{documented: true, reveal: true, seen: map[reflect.Type]bool{}}, cfg)
	if err != nil {
		return nil, err
	}
	sections := bytes.ReplaceAll(out, []byte("\n# "), []byte("\n\n# "))
	return slices.Concat([]byte(exampleHead), []byte("\n"), sections), nil
}

const exampleHead = `# Weft's configuration: every key with its default and what it means.
#
# Generated from the code ('weft config example'). 'weft check' tells every fault of a file at once.
# Every value can be given in the environment instead, which wins: kafka.brokers is
# WEFT_KAFKA_BROKERS, lists are separated by commas; only sources and inlets need this file.
# WEFT_CONFIG names the file itself. Durations: 500ms, 10s, 72h, 7d.
`

func sampleSources() []Source {
	return []Source{
		{Name: "shop-web", Kind: KindBrowser, WriteKey: "change-me-web", Brand: "main", Mode: ModeCompatible,
			Transformations: []Transformation{{When: "event.context.page.url.startsWith('https://staging.')", Drop: true}}},
		{Name: "shop-backend", Kind: KindServer, WriteKey: "change-me-backend", Brand: "main", Trusted: true},
	}
}

// sampleInlets reads a till's sales as orders.
func sampleInlets() []Inlet {
	return []Inlet{{
		Name: "till", Topic: "till.sales", Brand: "main", Trusted: true,
		Mapping: map[string]string{
			"type":                             "'track'",
			"event":                            "'Order Completed'",
			"userId":                           "$.customer.id",
			"context.traits.email":             "$.customer.email",
			"timestamp":                        "$.soldAt",
			"properties.order_id":              "$.receipt",
			"properties.total":                 "$.total",
			"properties.currency":              "$.currency",
			"properties.products[].product_id": "$.items[*].sku",
			"properties.products[].name":       "$.items[*].name",
			"properties.products[].price":      "$.items[*].price",
			"properties.products[].quantity":   "$.items[*].quantity",
		},
	}}
}

func render(p printer, cfg Config) ([]byte, error) {
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(p.section("", reflect.ValueOf(cfg))); err != nil {
		return nil, fmt.Errorf("print configuration: %w", err)
	}
	if err := e.Close(); err != nil {
		return nil, fmt.Errorf("print configuration: %w", err)
	}
	return out.Bytes(), nil
}

type printer struct {
	documented bool                  // explain each key
	reveal     bool                  // show secrets: they are samples
	seen       map[reflect.Type]bool // list elements whose keys are explained already
	entry      bool                  // in an entry of a list whose keys are explained elsewhere: what is not set is left out
}

func (p printer) section(path string, v reflect.Value) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range fieldsOf(v.Type()) {
		if p.entry && v.Field(f.index).IsZero() {
			continue
		}
		key := &yaml.Node{Kind: yaml.ScalarNode, Value: f.name}
		if p.documented {
			key.HeadComment = p.comment(path, f)
		}
		n.Content = append(n.Content, key, p.value(join(path, f.name), v.Field(f.index), f.secret))
	}
	return n
}

func (p printer) comment(path string, f field) string {
	depth := 0
	if path != "" {
		depth = 2 * (1 + strings.Count(path, "."))
	}
	return wrap(f.doc, commentWidth-depth)
}

func (p printer) value(path string, v reflect.Value, secret bool) *yaml.Node {
	switch {
	case v.Type() == durationType:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: formatDuration(time.Duration(v.Int()))}
	case v.Kind() == reflect.Struct:
		return p.section(path, v)
	case v.Kind() == reflect.Slice:
		return p.list(path, v, secret)
	case v.Kind() == reflect.Map:
		n := &yaml.Node{Kind: yaml.MappingNode}
		entries, _ := v.Interface().(map[string]string) // the only kind of map there is
		for _, k := range slices.Sorted(maps.Keys(entries)) {
			n.Content = append(n.Content, text(k), text(entries[k]))
		}
		if v.Len() == 0 {
			n.Style = yaml.FlowStyle
		}
		return n
	case v.Kind() == reflect.Bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: strconv.FormatBool(v.Bool())}
	case v.Kind() == reflect.Int:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: strconv.FormatInt(v.Int(), 10)}
	}
	if secret && !p.reveal && v.String() != "" {
		return text(hidden)
	}
	return text(v.String())
}

func (p printer) list(path string, v reflect.Value, secret bool) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode}
	if v.Len() == 0 || v.Type().Elem().Kind() == reflect.String {
		n.Style = yaml.FlowStyle
	}
	for i := range v.Len() {
		each := p
		each.documented = p.documented && i == 0 && !p.seen[v.Type().Elem()]
		each.entry = !each.documented
		n.Content = append(n.Content, each.value(path, v.Index(i), secret))
	}
	if p.documented {
		p.seen[v.Type().Elem()] = true
	}
	return n
}

// text is a YAML scalar that reads back as this very text.
func text(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	// A text of several lines in block style does not read back if one begins with a tab.
	if s == "" || strings.HasPrefix(s, "'") || n.Style == yaml.LiteralStyle {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// wrap breaks s into lines of at most width, without breaking words.
func wrap(s string, width int) string {
	var out strings.Builder
	line := 0
	for i, word := range strings.Fields(s) {
		switch {
		case i == 0:
		case line+1+len(word) > width:
			out.WriteByte('\n')
			line = -1
		default:
			out.WriteByte(' ')
		}
		out.WriteString(word)
		line += 1 + len(word)
	}
	return out.String()
}
