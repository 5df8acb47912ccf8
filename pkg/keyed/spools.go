package keyed

import (
	"context"
	"fmt"
	"strings"

	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/spool/registry"
)

// spooled waits until no collector has acknowledged events that are not in Kafka. It comes before the first end
// offset is read: what was acknowledged before the walk began is then in Kafka and below those ends, or its
// collector's registration, which came before the acknowledgement, is still there. Registrations that an operator
// has overridden are passed, and said to have been.
func (f *Fence) spooled(ctx context.Context) (overridden bool, err error) {
	spools := registry.New(f.deps.Store, f.t)
	told := ""
	err = f.until(ctx, "fence waits for a collector's spool to be drained", "spools", func() (bool, error) {
		entries, err := spools.List(ctx)
		if err != nil {
			return false, fmt.Errorf("look for spools: %w", err)
		}
		var open, passed []string
		for _, e := range entries {
			if e.Override != nil {
				passed = append(passed, e.ID)
			} else {
				open = append(open, e.Host+":"+e.Dir)
			}
		}
		if len(open) > 0 {
			f.step(1, "spooled events of "+strings.Join(open, ", "))
			return false, nil
		}
		if overridden = len(passed) > 0; overridden && told == "" {
			told = strings.Join(passed, ", ")
			f.deps.Log.Warn("fence passes spools that an operator has overridden", zap.String("spools", told))
		}
		return true, nil
	})
	return overridden, err
}

// Overridden says that the last walk to end has passed events that only a collector's spool has, because an
// operator wanted it: what is decided behind it may not know all that was acknowledged.
func (f *Fence) Overridden() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.passed
}
