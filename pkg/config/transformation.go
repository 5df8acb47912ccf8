package config

import (
	"os"
	"reflect"
	"strings"
)

// Transformation is one thing that is done to the events of a source before they are judged. It has exactly one of
// file, drop, remove, rename, rename_event, derive, hash and redact.
type Transformation struct {
	Name        string            `yaml:"name" doc:"What metrics and errors call it. Empty: its place and what it does, such as 3-remove."`
	When        string            `yaml:"when" doc:"CEL condition over event: only if it is true. Empty: always."`
	File        string            `yaml:"file" doc:"YAML file with a list of transformations that stand in this one's place, so that sources share them."`
	Drop        bool              `yaml:"drop" doc:"Keep nothing of the event; it is counted."`
	Remove      []string          `yaml:"remove" doc:"Fields to take out, such as properties.card or properties.products[*].email."`
	Rename      map[string]string `yaml:"rename" doc:"Fields and the paths that they get, such as properties.mail: traits.email. A field that is there already is not replaced."`
	RenameEvent map[string]string `yaml:"rename_event" doc:"Names of tracks and what they are called instead, such as Bought: Order Completed."`
	Derive      map[string]string `yaml:"derive" doc:"Fields and the CEL expressions over event whose values they get; without a value nothing is set."`
	Hash        []string          `yaml:"hash" doc:"Fields whose values become their HMAC-SHA256 in hexadecimal digits, with the key of key_file."`
	KeyFile     string            `yaml:"key_file" doc:"For hash: file that holds the key, at least 16 bytes."`
	Redact      []string          `yaml:"redact" doc:"Fields whose values become the text of with."`
	With        string            `yaml:"with" doc:"For redact: the text. Empty: [redacted]."`
}

// LoadTransformations reads a file with a list of transformations, as strictly as Load. Its error is Faults if the
// content is at fault. What the transformations mean is for package transform to say.
func LoadTransformations(file string) ([]Transformation, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the path is the operator's
	if err != nil {
		return nil, err
	}
	l := loader{file: file, origin: map[string]string{}}
	var list []Transformation
	l.yaml("transformations", text, reflect.ValueOf(&list).Elem())
	return list, l.faults.err()
}

// Kinds are what a transformation does, by the names of the keys: exactly one, if it is right.
func (t Transformation) Kinds() []string {
	var kinds []string
	v := reflect.ValueOf(t)
	for _, f := range fieldsOf(v.Type()) {
		switch f.name {
		case "name", "when", "key_file", "with":
			continue
		}
		value := v.Field(f.index)
		if k := value.Kind(); k == reflect.Slice || k == reflect.Map {
			if value.Len() == 0 {
				continue
			}
		}
		if !value.IsZero() {
			kinds = append(kinds, f.name)
		}
	}
	return kinds
}

// transformations checks what can be seen without compiling.
func (c *checker) transformations(path string, list []Transformation) {
	for i, t := range list {
		p, kinds := index(path, i), t.Kinds()
		c.want(len(kinds) == 1, p, "want exactly one of file, drop, remove, rename, rename_event, derive, hash, redact, found %s",
			or(strings.Join(kinds, " and "), "none"))
		c.want(t.KeyFile != "" || len(t.Hash) == 0, p+".key_file", "hash needs one")
		c.want(t.KeyFile == "" || len(t.Hash) > 0, p+".key_file", "is for hash")
		c.want(t.With == "" || len(t.Redact) > 0, p+".with", "is for redact")
		c.want(t.File == "" || t.When == "" && t.Name == "", p, "file stands alone: name and when are for its entries")
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
