package identity

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of a rules file. All of it is held in memory and looked at for every event.
const (
	maxRulesBytes   = 1 << 20 // the longest list of blocked values, and then some
	maxTypes        = 100     // each has a rank of one byte
	maxPlaces       = 20      // of one type: every way of writing a trait's name, twice over
	maxBlockedExact = 10_000
	maxPatterns     = 100
	maxPattern      = 500    // characters of one pattern; they are matched in linear time
	maxLimitValues  = 10_000 // above what a person may have in all
)

// Fault is one thing wrong with a rules file.
type Fault struct {
	File string
	Line int    // from 1
	Path string // such as types.email.limit.per; empty: the file as a whole
	Text string
}

func (f *Fault) Error() string {
	s := f.File + ":" + strconv.Itoa(f.Line) + ": "
	if f.Path != "" {
		s += f.Path + ": "
	}
	return s + f.Text
}

// spec is a rules file as it is written.
type spec struct {
	blocked  blockSpec
	other    Limit // of types that are not listed
	previous string
	types    []typeSpec // in order of the file
	devices  Devices    // but for Slice
	logOut   []string   // names of events
}

// typeSpec is one entry of types.
type typeSpec struct {
	Type
	line      int
	find      []placeSpec
	cel       string
	celLine   int
	normalise []string
	format    string
	pattern   *regexp.Regexp
	block     blockSpec
}

// placeSpec is one entry of find.
type placeSpec struct {
	path string
	when map[string][]string // path to the texts that it may have
	line int
}

type blockSpec struct {
	exact    []string // in lower case
	patterns []*regexp.Regexp
}

// specReader reads a rules file and notes every fault.
type specReader struct {
	file   string
	faults []error
}

func (r *specReader) fault(n *yaml.Node, path, format string, args ...any) {
	r.faults = append(r.faults, &Fault{r.file, max(n.Line, 1), path, fmt.Sprintf(format, args...)})
}

// yamlLine is where the library says that a line is.
var yamlLine = regexp.MustCompile(`line (\d+): `)

// parseSpec reads a rules file. The error joins all faults, each a *Fault.
func parseSpec(file string, text []byte) (*spec, error) {
	r := &specReader{file: file}
	if len(text) > maxRulesBytes {
		return nil, &Fault{file, 1, "", fmt.Sprintf("has %d bytes, at most %d", len(text), maxRulesBytes)}
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		f := &Fault{File: file, Line: 1, Text: strings.TrimPrefix(err.Error(), "yaml: ")}
		if m := yamlLine.FindStringSubmatch(f.Text); m != nil {
			_, _ = fmt.Sscan(m[1], &f.Line) // digits by the pattern
			f.Text = strings.TrimPrefix(f.Text, m[0])
		}
		return nil, f
	}
	s := &spec{other: Limit{Values: 5}, previous: "user_id", devices: Devices{Idle: defaultIdle}, logOut: defaultLogOut()}
	if len(doc.Content) == 0 {
		return nil, &Fault{file, 1, "types", "is missing: no event would name anybody"}
	}
	top := doc.Content[0]
	r.object(top, "", map[string]func(string, *yaml.Node){
		"types":         func(path string, n *yaml.Node) { s.types = r.types(path, n) },
		"blocked":       func(path string, n *yaml.Node) { s.blocked = r.block(path, n) },
		"default_limit": func(path string, n *yaml.Node) { s.other = r.limit(path, n) },
		"previous_id":   func(path string, n *yaml.Node) { s.previous = r.text(path, n) },
		"devices":       func(path string, n *yaml.Node) { r.devices(path, n, s) },
	})
	if len(r.faults) == 0 && !slices.ContainsFunc(s.types, func(t typeSpec) bool { return t.Name == s.previous }) {
		r.fault(top, "previous_id", "%q is not in types", s.previous)
	}
	if len(r.faults) == 0 {
		r.order(s)
	}
	return s, errors.Join(r.faults...)
}

// object reads a mapping: each of its keys, once, by the reader of that name.
func (r *specReader) object(n *yaml.Node, path string, keys map[string]func(path string, n *yaml.Node)) {
	r.each(n, path, func(at string, key, value *yaml.Node) {
		read, ok := keys[key.Value]
		if !ok {
			r.fault(key, at, "unknown key; known here: %s", strings.Join(slices.Sorted(maps.Keys(keys)), ", "))
			return
		}
		read(at, value)
	})
}

// each calls do for each key of a mapping; one that is there twice, and what is no mapping, is a fault.
func (r *specReader) each(n *yaml.Node, path string, do func(at string, key, value *yaml.Node)) {
	n = resolved(n)
	if n.Kind != yaml.MappingNode {
		r.fault(n, path, "want keys with values")
		return
	}
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		if line, twice := first[key.Value]; twice {
			r.fault(key, at, "given twice, first in line %d", line)
			continue
		}
		first[key.Value] = key.Line
		do(at, key, n.Content[i+1])
	}
}

func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// text reads a text; a number counts as its digits.
func (r *specReader) text(path string, n *yaml.Node) string {
	n = resolved(n)
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Tag == "!!bool" {
		r.fault(n, path, "want a text (in quotes, where it reads as something else)")
		return ""
	}
	return n.Value
}

// texts reads a list of texts, or one.
func (r *specReader) texts(path string, n *yaml.Node, most int) []string {
	n = resolved(n)
	if n.Kind == yaml.ScalarNode {
		return []string{r.text(path, n)}
	}
	list := make([]string, 0, len(n.Content))
	r.list(path, n, most, func(at string, x *yaml.Node) { list = append(list, r.text(at, x)) })
	return list
}

func (r *specReader) list(path string, n *yaml.Node, most int, do func(at string, n *yaml.Node)) {
	n = resolved(n)
	if n.Kind != yaml.SequenceNode {
		r.fault(n, path, "want a list")
		return
	}
	if len(n.Content) > most {
		r.fault(n, path, "has %d entries, at most %d", len(n.Content), most)
		return
	}
	for i, x := range n.Content {
		do(path+"["+strconv.Itoa(i)+"]", x)
	}
}

// number reads a whole number between least and most, decimal or 0x.
func (r *specReader) number(path string, n *yaml.Node, least, most int) int {
	n = resolved(n)
	x, err := strconv.ParseInt(n.Value, 0, 32)
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil || int(x) < least || int(x) > most {
		r.fault(n, path, "want a whole number from %d to %d", least, most)
		return least
	}
	return int(x)
}

func (r *specReader) truth(path string, n *yaml.Node) bool {
	n = resolved(n)
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
		r.fault(n, path, "want true or false")
		return false
	}
	return n.Value == "true"
}

// oneOf reads one of some words.
func (r *specReader) oneOf(path string, n *yaml.Node, words ...string) string {
	word := r.text(path, n)
	if word != "" && !slices.Contains(words, word) {
		r.fault(n, path, "want one of %s, found %q", strings.Join(words, ", "), word)
		return ""
	}
	return word
}

// limit reads {values, per}.
func (r *specReader) limit(path string, n *yaml.Node) Limit {
	l := Limit{Values: -1}
	r.object(n, path, map[string]func(string, *yaml.Node){
		"values": func(path string, n *yaml.Node) { l.Values = r.number(path, n, 0, maxLimitValues) },
		"per": func(path string, n *yaml.Node) {
			switch r.oneOf(path, n, "ever", "year", "month", "week") {
			case "year":
				l.Per = year
			case "month":
				l.Per = month
			case "week":
				l.Per = week
			}
		},
	})
	if l.Values < 0 {
		r.fault(n, path, "want values: how many one person may have, 0 for any number")
	}
	return l
}

// block reads {exact, patterns}.
func (r *specReader) block(path string, n *yaml.Node) (b blockSpec) {
	r.object(n, path, map[string]func(string, *yaml.Node){
		"exact": func(path string, n *yaml.Node) {
			for _, v := range r.texts(path, n, maxBlockedExact) {
				b.exact = append(b.exact, strings.ToLower(strings.TrimSpace(v)))
			}
		},
		"patterns": func(path string, n *yaml.Node) {
			r.list(path, n, maxPatterns, func(at string, x *yaml.Node) {
				if p := r.pattern(at, x, "(?i)"); p != nil {
					b.patterns = append(b.patterns, p)
				}
			})
		},
	})
	return b
}

// pattern reads a regular expression, with flags before it.
func (r *specReader) pattern(path string, n *yaml.Node, flags string) *regexp.Regexp {
	text := r.text(path, n)
	if len(text) > maxPattern {
		r.fault(n, path, "has %d characters, at most %d", len(text), maxPattern)
		return nil
	}
	p, err := regexp.Compile(flags + text)
	if text == "" {
		return nil // noted, or it would fit anything
	}
	if err != nil {
		r.fault(n, path, "want a regular expression (RE2): %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		return nil
	}
	return p
}
