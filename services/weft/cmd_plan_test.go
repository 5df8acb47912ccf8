package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/plan"
)

// A plan learnt from traffic fits it; what comes afterwards is told.
func TestPlanIsLearntAndCompared(t *testing.T) {
	k := newTopics(t)
	for i := range 30 {
		k.collected("web", fmt.Sprintf("u-%d", i), "Order Completed")
	}
	k.collected("app", "u-1", "Other")
	code, learnt, stderr := k.weft("plan infer --source web")
	require.Zero(t, code, stderr)
	require.Contains(t, learnt, "# Learnt from 30 events; 0 more had too many names.\n")
	require.NotContains(t, learnt, "Other")
	p, err := plan.Parse([]byte(learnt))
	require.NoError(t, err)
	require.Equal(t, []string{plan.Unplanned, "Order Completed"}, p.Rules())

	dir := t.TempDir()
	file, events := filepath.Join(dir, "plan.yaml"), filepath.Join(dir, "events.jsonl")
	require.NoError(t, os.WriteFile(file, []byte(learnt), 0o600))
	code, stdout, _ := k.weft("plan diff " + file + " --source web")
	require.Zero(t, code)
	require.Equal(t, "30 events\nno differences\n", stdout)

	require.NoError(t, os.WriteFile(events, []byte(`{"type":"track","event":"Order Completed","userId":"u","properties":{"n":"x","more":true}}
{"type":"track","event":"New","userId":"u"}
`), 0o600))
	code, stdout, _ = k.weft("plan diff " + file + " --file " + events)
	require.Equal(t, exitError, code, "something is breaking")
	require.Equal(t, `2 events
additive  New: came and is not in the plan
additive  Order Completed: properties.more: came and is not in the plan: boolean
breaking  Order Completed: properties.n: planned as integer, came as string, too
breaking  Order Completed: properties.n: violated by 1 events (flag)
`, stdout)

	newer := filepath.Join(dir, "newer.yaml")
	require.NoError(t, os.WriteFile(newer, []byte(learnt+"    - event: New\n      schema: {}\n"), 0o600))
	code, stdout, stderr = k.weft("plan diff " + file + " " + newer)
	require.Zero(t, code, stderr)
	require.Equal(t, "additive  New: is new\n", stdout)

	code, _, stderr = k.weft("plan infer --source nobody")
	require.Equal(t, exitError, code)
	require.Contains(t, stderr, "there are no such events")
}
