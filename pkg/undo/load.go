package undo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/profile"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/schemas/audiences"
)

// LoadFolds reads the rules of profile-builder and activator that a configuration names. Without journey files there are no
// running journeys in a preview.
func LoadFolds(cfg config.Config) (Folds, error) {
	f := Folds{Profile: profile.Rules{BrandTraits: cfg.Builder.BrandTraits}}
	name, text := audiences.ExampleName, audiences.Example()
	if file := cfg.Builder.AudiencesFile; file != "" {
		var err error
		if text, err = os.ReadFile(file); err != nil { //nolint:gosec // the path is the operator's configuration
			return f, fmt.Errorf("builder.audiences_file: %w", err)
		}
		name = file
	}
	var err error
	if f.Audiences, err = profile.ParseAudiences(name, text); err != nil {
		return f, fmt.Errorf("builder.audiences_file: %w", err)
	}
	paths, err := filepath.Glob(filepath.Join(cfg.Activator.Journeys, "*.yaml"))
	if err != nil {
		return f, fmt.Errorf("activator.journeys: %w", err)
	}
	for _, path := range paths {
		j, faults := journey.Check(path)
		if len(faults) > 0 {
			if _, gone := os.Stat(path); errors.Is(gone, fs.ErrNotExist) {
				continue
			}
			return f, fmt.Errorf("activator.journeys: %w", journey.Faults(faults))
		}
		f.Journeys = append(f.Journeys, j)
	}
	return f, nil
}

// LinksOf reads the pairs of a person's links from ClickHouse, and what caused each.
func LinksOf(w *warehouse.Client) func(ctx context.Context, person string) ([][2]string, []string, error) {
	return func(ctx context.Context, person string) (pairs [][2]string, causes []string, err error) {
		id, err := uuid.Parse(person)
		if err != nil {
			return nil, nil, fmt.Errorf("person: %w", err)
		}
		rows, err := w.PersonLinks(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		for i := 0; i+1 < len(rows); i++ {
			a, b := &rows[i], &rows[i+1]
			if a.Loser == b.Loser && a.Winner == b.Winner && a.Cause == b.Cause && a.Rule != "split" && a.Type != "" && b.Type != "" {
				pairs, causes = append(pairs, [2]string{a.Node.String(), b.Node.String()}), append(causes, a.MessageID)
			}
		}
		return pairs, causes, nil
	}
}
