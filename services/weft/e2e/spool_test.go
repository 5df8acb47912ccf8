//go:build integration

package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// killRate is the load of TestKilledWhileSpooling: enough that each kill finds calls under way.
	killRate, killCall = 100, 5
	// spooledFirst is how many records wait before a collector is killed.
	spooledFirst = 200
)

// TestKilledWhileSpooling: two collectors spool because Kafka was killed. One of them is killed with calls under way, is
// started again while Kafka is still away, takes events again, is killed again and never comes back. When Kafka does, the
// other one drains what both have acknowledged: nothing is missing, and no registration is left.
func TestKilledWhileSpooling(t *testing.T) {
	b := startBroker(t)
	d := deploy(t, options{broker: b.address, services: []string{collector}})
	first := d.processes[collector]
	address := freeAddress(t)
	second := d.process(collector, "collector-2", "WEFT_COLLECTOR_LISTEN="+address)
	t.Cleanup(func() {
		if err := second.stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			second.showLog()
		}
	})
	second.start()
	second.awaitReady()
	l := startLoad(t, killRate, killCall, d.door, "http://"+address)
	answered := func(from time.Time, door int) int { // 200 by one of the doors
		n := 0
		for _, c := range l.between(from, time.Now()) {
			if c.status == http.StatusOK && c.first/killCall%len(l.doors) == door {
				n++
			}
		}
		return n
	}
	begun := time.Now()
	eventually(t, settleLimit, "both doors are open", func() error {
		return want("doors", true, answered(begun, 0) > 0 && answered(begun, 1) > 0)
	})
	b.kill()
	spools := func(p *process) {
		eventually(t, settleLimit, p.name+" has spooled", func() error {
			return want("enough", true, d.metricOf(p, "weft_spool_waiting_records") >= spooledFirst)
		})
	}
	spools(first)
	spools(second)
	first.kill()
	killed := time.Now()
	first.start()
	first.awaitReady() // without Kafka
	eventually(t, settleLimit, "it takes events again", func() error { return want("calls", true, answered(killed, 0) > killRate/killCall) })
	require.GreaterOrEqual(t, d.metricOf(first, "weft_spool_waiting_records"), float64(spooledFirst), "what it had left, it found")
	first.kill() // for good
	seen := time.Now()
	eventually(t, settleLimit, "the other one goes on", func() error { return want("calls", true, answered(seen, 1) > killRate/killCall) })

	b.start()
	eventually(t, outageLimit, "all is drained, and no registration left", func() error {
		if n := d.metricOf(second, "weft_spool_waiting_records"); n > 0 {
			return want("waiting records", 0, n)
		}
		return want("registrations gone", true, strings.Contains(d.run("spool", "show"), "no spool is registered"))
	})
	l.end()
	acknowledged, found := l.acknowledged(), d.kafka.numbers(d.prefix+"events.collected")
	missing := 0
	for id := range acknowledged {
		if found[id] == 0 {
			missing++
		}
	}
	require.Zero(t, missing, "of %d acknowledged events", len(acknowledged))
	for _, c := range l.between(time.Time{}, time.Now()) {
		late := c.status == http.StatusServiceUnavailable && c.retryAfter // a machine too slow for Redis to answer in time
		require.True(t, c.status == http.StatusOK || c.status == 0 || late, "a door that lives takes everything, and answered %d", c.status)
	}
	t.Logf("%d events acknowledged by two collectors, one killed twice while it spooled and then gone: all in Kafka, %d of them twice with one message id; %d calls were cut off",
		len(acknowledged), repeats(found), statuses(l.between(time.Time{}, time.Now()))[0])
}
