package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Load reads the configuration: Defaults, then the YAML file at path (none if path is empty), then the
// variables of environ that begin with WEFT_, in the form of os.Environ.
//
// It is strict, and tells everything at once: an error about the content is Faults, with every unknown
// key, unknown variable, bad type and bad value, each with its path and where it stands. Lists are
// separated by commas in the environment; sources, inlets and mappings come from the file only. A key
// without a value keeps its default; an empty variable sets an empty text or list.
//
// Where a command has other defaults, change says so.
func Load(path string, environ []string, change ...func(*Config)) (Config, error) {
	l := loader{file: path, origin: map[string]string{}}
	cfg := Defaults()
	for _, f := range change {
		f(&cfg)
	}
	if path != "" {
		text, err := os.ReadFile(path) //nolint:gosec // the path is the operator's
		if err != nil {
			return Config{}, fmt.Errorf("read configuration: %w", err)
		}
		l.yaml("", text, reflect.ValueOf(&cfg).Elem())
	}
	l.environment(environ, reflect.ValueOf(&cfg).Elem())
	l.besideData(&cfg.Identity.KeyFile, "identity.key_file", cfg.DataDir)
	l.besideData(&cfg.Collector.UnsubscribeSecret, "collector.unsubscribe_secret_file", cfg.DataDir)
	l.besideData(&cfg.Collector.SpoolDir, "collector.spool_dir", cfg.DataDir)
	if _, set := l.origin["collector.drain_delay"]; !set { // who shortens the shutdown need not know of it
		cfg.Collector.DrainDelay = min(cfg.Collector.DrainDelay, max(cfg.Admin.ShutdownTimeout, 0)/2)
	}
	l.sources(&cfg)
	l.add(check(cfg))
	return cfg, l.faults.err()
}

// add notes what is wrong in meaning, where nothing is noted about its form.
func (l *loader) add(faults Faults) {
	for _, f := range faults {
		if !l.faults.concerns(f.Path) {
			f.Origin = l.originOf(f.Path)
			l.faults = append(l.faults, f)
		}
	}
}

// Validate checks the meaning of a configuration that was made in code. Its error is Faults.
func Validate(cfg Config) error { return check(cfg).err() }

type loader struct {
	file   string
	faults Faults
	origin map[string]string // by path, of what is not a default
}

// besideData moves the default of a file or directory that Weft makes itself to the configured data directory.
func (l *loader) besideData(file *string, path, dir string) {
	if _, set := l.origin[path]; !set && dir != "" {
		*file = filepath.Join(dir, filepath.Base(*file))
	}
}

// originOf is where path was set, or the section it stands in.
func (l *loader) originOf(path string) string {
	for path != "" {
		if o, ok := l.origin[path]; ok {
			return o
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return ""
}

func (l *loader) at(n *yaml.Node) string { return l.file + ":" + strconv.Itoa(n.Line) }

func (l *loader) fault(path string, n *yaml.Node, format string, args ...any) {
	l.faults = append(l.faults, Fault{path, l.at(n), fmt.Sprintf(format, args...)})
}

// yaml reads a file whose content is at path.
func (l *loader) yaml(path string, text []byte, v reflect.Value) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	if err := d.Decode(&doc); errors.Is(err, io.EOF) {
		return // an empty file says nothing
	} else if err != nil {
		l.faults = append(l.faults, Fault{Path: path, Origin: l.file, Problem: strings.TrimPrefix(err.Error(), "yaml: ")})
		return
	}
	l.node(path, doc.Content[0], v, false)
	if err := d.Decode(&more); err == nil {
		l.fault(path, &more, "a second document: the configuration is one")
	} else if !errors.Is(err, io.EOF) {
		l.faults = append(l.faults, Fault{Path: path, Origin: l.file, Problem: strings.TrimPrefix(err.Error(), "yaml: ")})
	}
}

// node reads n into v. Its depth is that of Config, whatever the file's aliases do.
func (l *loader) node(path string, n *yaml.Node, v reflect.Value, secret bool) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	l.origin[path] = l.at(n)
	switch {
	case v.Type() == durationType:
		l.scalar(path, n, v, secret)
	case v.Kind() == reflect.Struct:
		l.section(path, n, v)
	case v.Kind() == reflect.Slice:
		l.list(path, n, v, secret)
	case v.Kind() == reflect.Map:
		l.mapping(path, n, v)
	default:
		l.scalar(path, n, v, secret)
	}
}

// keys calls do for every key of a mapping and reports what is no mapping and keys that are given twice.
func (l *loader) keys(path string, n *yaml.Node, do func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		l.fault(path, n, "want keys with values, found %s", kindOf(n))
		return
	}
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if line, ok := first[key.Value]; ok {
			l.fault(join(path, key.Value), key, "given twice, first in line %d", line)
			continue
		}
		first[key.Value] = key.Line
		do(key, n.Content[i+1])
	}
}

func (l *loader) section(path string, n *yaml.Node, v reflect.Value) {
	fields := fieldsOf(v.Type())
	names := make([]string, 0, len(fields))
	for _, f := range fields {
		names = append(names, f.name)
	}
	l.keys(path, n, func(key, value *yaml.Node) {
		p := join(path, key.Value)
		i := slices.Index(names, key.Value)
		if i >= 0 {
			l.node(p, value, v.Field(fields[i].index), fields[i].secret)
			return
		}
		if hint := nearest(key.Value, names); hint != "" {
			l.fault(p, key, "unknown key; did you mean %s?", hint)
			return
		}
		l.fault(p, key, "unknown key; known here: %s", strings.Join(names, ", "))
	})
}

func (l *loader) list(path string, n *yaml.Node, v reflect.Value, secret bool) {
	if n.Kind != yaml.SequenceNode {
		l.fault(path, n, "want a list, found %s", kindOf(n))
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		l.node(path+"["+strconv.Itoa(i)+"]", item, out.Index(i), secret)
	}
	v.Set(out)
}

func (l *loader) mapping(path string, n *yaml.Node, v reflect.Value) {
	out := reflect.MakeMap(v.Type())
	l.keys(path, n, func(key, value *yaml.Node) {
		text := reflect.New(v.Type().Elem()).Elem()
		l.node(join(path, key.Value), value, text, false)
		out.SetMapIndex(reflect.ValueOf(key.Value), text)
	})
	v.Set(out)
}

func (l *loader) scalar(path string, n *yaml.Node, v reflect.Value, secret bool) {
	want := wanted(v)
	if n.Kind != yaml.ScalarNode {
		l.fault(path, n, "want %s, found %s", want, kindOf(n))
		return
	}
	if v.Kind() == reflect.String && n.Tag != "!!str" {
		l.fault(path, n, "want text: put it in quotes")
		return
	}
	if (v.Kind() == reflect.Bool || v.Kind() == reflect.Int) && n.Tag == "!!str" {
		l.fault(path, n, "want %s%s", want, found(n.Value, secret))
		return
	}
	if err := setText(v, n.Value); err != nil {
		l.fault(path, n, "want %s%s", want, found(n.Value, secret))
	}
}

// setText reads a scalar from its text, as it stands in the file or the environment.
func setText(v reflect.Value, text string) error {
	switch {
	case v.Type() == durationType:
		d, err := parseDuration(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(d))
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(strings.ToLower(text))
		if err != nil {
			return err
		}
		v.SetBool(b)
	case v.Kind() == reflect.Int:
		n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 0)
		if err != nil {
			return err
		}
		v.SetInt(n)
	default:
		return fmt.Errorf("set a %s", v.Type())
	}
	return nil
}

// parseDuration reads what time.ParseDuration does, and whole days such as 7d.
func parseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		const most = int64(1<<63-1) / int64(24*time.Hour)
		if n, err := strconv.ParseInt(days, 10, 64); err == nil && n <= most && n >= -most {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	return time.ParseDuration(text)
}

// formatDuration writes the shortest text that parseDuration reads back.
func formatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d != 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func wanted(v reflect.Value) string {
	switch {
	case v.Type() == durationType:
		return "a duration such as 500ms, 10s, 72h or 7d"
	case v.Kind() == reflect.Bool:
		return "true or false"
	case v.Kind() == reflect.Int:
		return "a whole number"
	default:
		return "text"
	}
}

func found(value string, secret bool) string {
	if secret {
		return ""
	}
	return fmt.Sprintf(", found %q", value)
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "a single value"
	}
}

// environment sets what variables name, and reports those that name nothing.
func (l *loader) environment(environ []string, v reflect.Value) {
	byName := map[string]leaf{}
	var names []string
	for _, x := range leaves("", v) {
		byName[EnvName(x.path)] = x
		names = append(names, EnvName(x.path))
	}
	for _, entry := range slices.Sorted(slices.Values(environ)) {
		name, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || name == EnvFile || name == EnvLibCHDB || strings.HasPrefix(name, EnvTestPrefix) {
			continue
		}
		x, ok := byName[name]
		if !ok {
			problem := "unknown variable: no such key"
			if hint := nearest(name, names); hint != "" {
				problem = "unknown variable; did you mean " + hint + "?"
			}
			l.faults = append(l.faults, Fault{Origin: name, Problem: problem})
			continue
		}
		l.origin[x.path] = name
		if isList(x.value.Type()) {
			x.value.Set(reflect.ValueOf(splitList(text)))
			continue
		}
		if err := setText(x.value, text); err != nil {
			l.faults = append(l.faults, Fault{x.path, name, "want " + wanted(x.value) + found(text, x.secret)})
		}
	}
}

func splitList(text string) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}
