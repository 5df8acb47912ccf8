//go:build !race

package identity

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
)

// One for what is returned, and one for each text that letters are made lower case in. (The race detector makes pools
// forget.)
func TestExtractAllocates(t *testing.T) {
	r := newTestRules(t, Options{})
	for body, most := range map[string]float64{browserEvent: 1, phoneEvent: 4} {
		e := decoded(t, body, event.Meta{})
		require.LessOrEqual(t, testing.AllocsPerRun(200, func() { r.Extract(e) }), most)
	}
}
