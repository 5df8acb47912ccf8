package config

import (
	"reflect"
	"strings"
	"time"
)

// Environment variables that begin with WEFT_ and are not keys of the file.
const (
	EnvFile    = "WEFT_CONFIG"  // path of the configuration file, where no --config is given
	EnvLibCHDB = "WEFT_LIBCHDB" // path of libchdb.so for the embedded ClickHouse
	// EnvTestPrefix begins the variables that tell integration tests where the servers are.
	EnvTestPrefix = "WEFT_TEST_"

	envPrefix = "WEFT_"
)

// field is one key of a section.
type field struct {
	name   string // in the file
	doc    string
	secret bool // never shown
	index  int  // in the struct
}

func fieldsOf(t reflect.Type) []field {
	fields := make([]field, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag.Get("yaml") == "-" { // no key
			continue
		}
		fields = append(fields, field{
			name: f.Tag.Get("yaml"), doc: f.Tag.Get("doc"), secret: f.Tag.Get("secret") == "true", index: i,
		})
	}
	return fields
}

// join is the path of a key below a section; the top has the empty path.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// EnvName is the environment variable of a path: kafka.brokers is WEFT_KAFKA_BROKERS.
func EnvName(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

var durationType = reflect.TypeFor[time.Duration]()

// isList says whether t is a list of texts, which the environment gives separated by commas.
func isList(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String
}

// leaf is one value that the environment may set.
type leaf struct {
	path   string
	secret bool
	value  reflect.Value
}

// leaves lists what the environment may set below v: all but lists of sections and mappings.
func leaves(path string, v reflect.Value) []leaf {
	var out []leaf
	for _, f := range fieldsOf(v.Type()) {
		p, child := join(path, f.name), v.Field(f.index)
		switch {
		case child.Kind() == reflect.Struct:
			out = append(out, leaves(p, child)...)
		case child.Kind() == reflect.Slice && !isList(child.Type()), child.Kind() == reflect.Map:
		default:
			out = append(out, leaf{p, f.secret, child})
		}
	}
	return out
}

// nearest returns the candidate that is at most two edits from name, or "".
func nearest(name string, candidates []string) string {
	const mostEdits = 2 // a typing error; more would suggest what nobody meant
	best, at := "", mostEdits+1
	for _, c := range candidates {
		if d := edits(name, c); d < at && d < len(name) {
			best, at = c, d
		}
	}
	return best
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
