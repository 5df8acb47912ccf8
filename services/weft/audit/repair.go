package audit

import (
	"context"
	"fmt"
	"io"

	"github.com/weft-cdp/weft/pkg/warehouse"
)

const (
	// repairBatch is how many rows of a table one statement removes: their places are written into it, and it
	// must stay well below ClickHouse's max_query_size (256 KiB).
	repairBatch = 2000
	// repairStuck is how many times in a row a repair may find that nothing went: parts are merged while it
	// works, and then it looks again.
	repairStuck = 10
)

// Repairer is what a repair asks ClickHouse. *warehouse.Client is one.
type Repairer interface {
	Extras(ctx context.Context, limit int) ([]warehouse.Extra, error)
	RemoveExtras(ctx context.Context, extras []warehouse.Extra) error
	// ReloadPersons makes views see what is left of the redirects.
	ReloadPersons(ctx context.Context) error
}

// Repair removes what was stored more than once and keeps one row of each, the one that was inserted first;
// each is written to w as it goes. With dry it removes nothing and says what would go, at most repairBatch rows
// of a table. It may run while events keep coming, but once at a time. It returns how many rows went.
func Repair(ctx context.Context, wh Repairer, dry bool, w io.Writer) (int, error) {
	verb := "removed"
	if dry {
		verb = "would remove"
	}
	shown := map[string]int{} // how many rows of each line were named
	total, stuck := 0, 0
	for {
		extras, err := wh.Extras(ctx, repairBatch)
		if err != nil {
			return total, err
		}
		if len(extras) == 0 {
			break
		}
		if !dry {
			if err := wh.RemoveExtras(ctx, extras); err != nil {
				return total, err
			}
		}
		fresh, found := 0, map[string]int{}
		for _, e := range extras {
			line := fmt.Sprintf("%s from %s: %s partition %d offset %d, inserted at %s\n",
				verb, e.Table, e.Topic, e.Partition, e.Offset, e.InsertedAt.UTC().Format("2006-01-02 15:04:05.000"))
			if found[line]++; found[line] <= shown[line] {
				continue // it was moved before it could be removed, and is found again
			}
			shown[line]++
			fresh++
			if _, err := io.WriteString(w, line); err != nil {
				return total, fmt.Errorf("print the repair: %w", err)
			}
		}
		total += fresh
		if dry {
			return total, nil
		}
		if stuck++; fresh > 0 {
			stuck = 0
		}
		if stuck >= repairStuck {
			return total, fmt.Errorf("audit: %d double rows are still there after %d attempts", len(extras), repairStuck)
		}
	}
	if total > 0 {
		if err := wh.ReloadPersons(ctx); err != nil {
			return total, err
		}
	}
	return total, nil
}
