package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// sumsName is the file of the sums over runs.
const sumsName = "strikes.json"

// Sums is what all runs of a ledger directory came to.
type Sums struct {
	Last       string         `json:"last_run"` // so that a run that is judged again counts once
	Runs       int            `json:"runs"`
	Clusters   int            `json:"runs_on_redis_cluster"`
	Seeds      []uint64       `json:"seeds"`
	Events     int            `json:"events_acknowledged"`
	Carts      int            `json:"carts"`
	Mails      int            `json:"mails"`
	People     int            `json:"people"`
	Strikes    Strikes        `json:"strikes"`
	Compared   map[string]int `json:"compared"`   // by promise
	Violations map[string]int `json:"violations"` // by promise
}

// ReadSums reads those of a directory; a directory without is at zero.
func ReadSums(dir string) (Sums, error) {
	s := Sums{Strikes: Strikes{}, Compared: map[string]int{}, Violations: map[string]int{}}
	text, err := os.ReadFile(filepath.Join(dir, sumsName)) //nolint:gosec // the caller's directory
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read the sums: %w", err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("read the sums: %w", err)
	}
	return s, nil
}

// Write replaces the file in one step.
func (s Sums) Write(dir string) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write the sums: %w", err)
	}
	file := filepath.Join(dir, sumsName)
	if err := os.WriteFile(file+".new", append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the sums: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("write the sums: %w", err)
	}
	return nil
}

// AddAll adds another run's strikes.
func (s Strikes) AddAll(other Strikes) {
	for stage, kinds := range other {
		for kind, n := range kinds {
			s.Add(stage, kind, n)
		}
	}
}
