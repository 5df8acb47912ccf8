package config

import (
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing wrong with the configuration.
type Fault struct {
	Path    string // such as collector.sources[0].brand; empty where the file as a whole is meant
	Origin  string // where the value comes from: FILE:LINE, an environment variable, or "" for a default
	Problem string // what is wrong, without the value of a secret
}

func (f Fault) String() string {
	var b strings.Builder
	if f.Origin != "" {
		b.WriteString(f.Origin + ": ")
	}
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	return b.String() + f.Problem
}

// Faults is every fault of a configuration, in the order of the file, then the environment, then what is
// only wrong in meaning.
type Faults []Fault

// Error lists every fault on a line of its own.
func (f Faults) Error() string {
	lines := make([]string, 0, len(f)+1)
	if len(f) == 1 {
		lines = append(lines, "configuration has 1 fault:")
	} else {
		lines = append(lines, fmt.Sprintf("configuration has %d faults:", len(f)))
	}
	for _, x := range f {
		lines = append(lines, "  "+x.String())
	}
	return strings.Join(lines, "\n")
}

// concerns says whether a fault of path, of something in it or of what it stands in is known already.
func (f Faults) concerns(path string) bool {
	within := func(in, outer string) bool {
		rest, ok := strings.CutPrefix(in, outer)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	}
	return slices.ContainsFunc(f, func(x Fault) bool {
		return x.Path != "" && (within(path, x.Path) || within(x.Path, path))
	})
}

func (f Faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}
