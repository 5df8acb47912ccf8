package strikes

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/scripts/chaos/servers"
)

// Every part's first strike falls into the time that FirstStrikes says, whatever the seed: what is promised to be struck
// in each run does not hang on luck.
func TestEveryPartIsStruckEarly(t *testing.T) {
	d := &servers.Deployment{Redis: []servers.Server{{Process: &servers.Process{Name: "redis"}}}}
	for _, stage := range servers.Stages() {
		d.Services = append(d.Services, &servers.Service{Stage: stage, Process: &servers.Process{Name: stage}})
	}
	parts := New(Plan{}, d, nil).parts()
	require.Len(t, parts, len(servers.Stages())+len(Servers()))
	for _, p := range parts {
		require.Less(t, p.pauses[1]+quietFor, FirstStrikes, p.name)
	}
}
