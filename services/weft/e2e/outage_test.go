//go:build integration

package e2e

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/topic"
)

// The size of TestOutage: small where it is one test of many, larger in 'make outage', which judges its times too.
var (
	outageFor   = flag.Duration("outage.for", 20*time.Second, "how long Kafka is away in TestOutage")
	outageRate  = flag.Int("outage.rate", 200, "its events per second")
	outageSpool = flag.Int("outage.spool", 0, "bound of its collector's spool in bytes, so that it runs full (64 MiB at least); 0: the default, which it must stay below")
	outageJudge = flag.Bool("outage.judge", false, "fail where a time, a rate or the memory misses its target")
)

const (
	// outageCall is how many events one call of its load brings.
	outageCall = 20
	// outageDelay is that of its journey, which is over when Kafka comes back.
	outageDelay = 30 * time.Second
	// outageSides is how long there is load before the outage, and behind its end.
	outageSides = 10 * time.Second
	// outageLooks is the pause between looks at the collector.
	outageLooks = 250 * time.Millisecond
	// outageLimit bounds draining, and the way of everything through the pipeline afterwards.
	outageLimit = 15 * time.Minute

	// The targets of a run that judges.
	targetLatency = 3        // times an fsync's 99th percentile
	targetDrain   = 0.8      // of ready batches
	targetMemory  = 64 << 20 // growth of the collector
	// fullFrom is the share of its bound from which a spool may be full for the next group of records.
	fullFrom = 0.9
)

// sight is one look at the collector.
type sight struct {
	at                             time.Time
	waiting, drained, bytes, limit float64
	resident                       int64
}

// outage is one run.
type outage struct {
	*deployment
	load         *load
	collector    *process
	gone, back   time.Time
	answers      time.Time // the broker is there again
	sights       []sight
	fsyncs       []time.Duration
	fence        [2]shopper // the first orders while Kafka is away, the second does not
	floorRecords float64
}

// TestOutage: Kafka is killed under steady load and comes back on its data. The door goes on from its spool until that is
// full; nothing that it acknowledged is missing afterwards, or there twice in effect; nobody is started anew. An order
// that waits in the spool stops its reminder, and no other reminder goes out before all is drained.
func TestOutage(t *testing.T) {
	b := startBroker(t)
	opt := options{broker: b.address, delay: outageDelay.String(), partitions: 12}
	if *outageSpool > 0 {
		opt.environ = []string{fmt.Sprintf("WEFT_COLLECTOR_SPOOL_MAX_BYTES=%d", *outageSpool)}
	}
	o := &outage{deployment: deploy(t, opt)}
	o.collector = o.processes[collector]
	o.kafka.createTopic(o.floorTopic(), int32(o.opt.partitions)) //nolint:gosec // a few
	pids := o.pids()
	o.load = startLoad(t, *outageRate, outageCall, o.door)
	o.lookUntil(time.Now().Add(outageSides))
	due := o.fillCarts()
	b.kill()
	o.gone = time.Now()
	t.Logf("Kafka is gone, %s before the reminders are due", due.Sub(o.gone).Round(time.Millisecond))
	o.send(ordered(event{"anonymousId": o.fence[0].laptop, "userId": o.fence[0].user}, "", "order-1"))
	stop := make(chan struct{})
	fsyncs := probe(t, o.dir, len(o.load.body(0)), time.Second*outageCall/time.Duration(*outageRate), stop)
	o.lookUntil(o.gone.Add(*outageFor / 2))
	require.Contains(t, o.run("spool", "show"), "wait for it")
	o.lookUntil(o.gone.Add(*outageFor))
	o.lookUntil(due)
	close(stop)
	o.fsyncs = <-fsyncs
	o.back = time.Now()
	b.start()
	o.answers = time.Now()
	t.Logf("Kafka answers %s after its start", o.answers.Sub(o.back).Round(time.Millisecond))
	o.drained()
	t.Logf("the spool is drained %s after that", time.Since(o.answers).Round(time.Millisecond))
	o.lookUntil(time.Now().Add(outageSides))
	o.floorRecords = o.floor(o.prefix + "events.collected")
	o.load.end()
	t.Log(o.report())
	o.complete()
	require.Equal(t, pids, o.pids(), "nobody was started anew")
	o.healthy()
	o.refusals()
	if *outageJudge {
		o.judge()
	}
}

func (o *outage) pids() map[string]int {
	out := map[string]int{}
	for name, p := range o.processes {
		require.True(o.t, p.running(), name)
		out[name] = p.cmd.Process.Pid
	}
	return out
}

// fillCarts has two people fill a cart each just before Kafka goes away, and returns when the reminders are due; on a
// machine that was too slow for that, two others.
func (o *outage) fillCarts() (due time.Time) {
	for n := 1; ; n++ {
		armed := o.metric(activator, "weft_activator_armed_total")
		begun := time.Now()
		for i := range o.fence {
			s := newShopper(fmt.Sprintf("shopper-%d-%d", n, i+1))
			o.fence[i] = s
			o.send(identify(s.phone, s.user, s.email), with(added(event{"anonymousId": s.phone}, "cart-"+s.user, "p1"), event{"timestamp": stamp(begun)}))
		}
		eventually(o.t, settleLimit, "both carts are armed", func() error {
			return want("armed", true, o.metric(activator, "weft_activator_armed_total") >= armed+2)
		})
		if time.Since(begun) < outageDelay/2 {
			return begun.Add(outageDelay)
		}
		require.Less(o.t, n, attempts, "the machine was too slow for the story every time")
	}
}

// lookUntil looks at the collector until a moment, and, while Kafka is away, for mails that may not be there.
func (o *outage) lookUntil(end time.Time) {
	o.t.Helper()
	for time.Now().Before(end) {
		o.look()
		o.until(time.Now().Add(min(outageLooks, max(time.Until(end), 0))))
	}
}

func (o *outage) look() sight {
	o.t.Helper()
	s := sight{at: time.Now(), resident: o.collector.memory("VmRSS:")}
	for name, to := range map[string]*float64{
		"weft_spool_waiting_records": &s.waiting, "weft_spool_drained_records_total": &s.drained,
		"weft_spool_bytes": &s.bytes, "weft_spool_max_bytes": &s.limit,
	} {
		*to = o.metric(collector, name)
	}
	o.sights = append(o.sights, s)
	return s
}

// drained waits until the spool is empty. Until all is drained that was spooled before Kafka came back there is no mail
// about the carts.
func (o *outage) drained() {
	o.t.Helper()
	begun, last := time.Now(), o.sights[len(o.sights)-1]
	for {
		mailed := o.mails()
		s := o.look()
		if s.waiting == 0 {
			return
		}
		if s.drained < last.drained+last.waiting {
			require.Empty(o.t, mailed, "a mail although events wait in the spool")
		}
		require.Less(o.t, time.Since(begun), outageLimit, "the spool is not drained")
		o.until(time.Now().Add(outageLooks))
	}
}

// mails about the two carts.
func (o *outage) mails() []string {
	var to []string
	for _, l := range o.mail.all() {
		if l.to == o.fence[0].email || l.to == o.fence[1].email {
			to = append(to, l.to)
		}
	}
	return to
}

// complete waits until all is through, and compares: what was acknowledged is in Kafka, passed on once, and one row each.
func (o *outage) complete() {
	o.t.Helper()
	acknowledged := o.load.acknowledged()
	events := o.prefix + "events.collected"
	missing := func(found map[int]int) (n int) {
		for id := range acknowledged {
			if found[id] == 0 {
				n++
			}
		}
		return n
	}
	collected := o.kafka.numbers(events)
	require.Zero(o.t, missing(collected), "acknowledged events that are not on events.collected")
	eventually(o.t, outageLimit, "identity-stitcher is through", func() error {
		return want("records to do", 0, o.kafka.lag(o.prefix+topic.StageStitcher+"."+events))
	})
	identified := o.kafka.numbers(o.prefix + "events.identified")
	require.Zero(o.t, missing(identified), "acknowledged events that are not on events.identified")
	twice := 0
	for _, n := range identified {
		if n > 1 {
			twice++
		}
	}
	require.Zero(o.t, twice, "events that count twice")
	const rows = "SELECT %s FROM events WHERE startsWith(message_id, '" + loadName + "')"
	eventually(o.t, outageLimit, "all events are in ClickHouse", func() error { return want("events", len(identified), o.number(rows, "count()")) })
	require.Equal(o.t, len(identified), o.number(rows, "uniqExact(message_id)"))
	o.t.Logf("%d events acknowledged, %d more sent and not: all of the first and %d of the others are in ClickHouse, each once; %d stand twice on events.collected, with one message id",
		len(acknowledged), o.load.perCall*len(o.load.between(time.Time{}, time.Now()))-len(acknowledged), len(identified)-len(acknowledged), repeats(collected))
	o.receiptsOfBoth()
}

// repeats counts those that stand there more than once.
func repeats(found map[int]int) (n int) {
	for _, times := range found {
		if times > 1 {
			n++
		}
	}
	return n
}

// receiptsOfBoth: who ordered while Kafka was away got no mail; who did not got one.
func (o *outage) receiptsOfBoth() {
	o.t.Helper()
	bought, left := "cart-"+o.fence[0].user, "cart-"+o.fence[1].user
	eventually(o.t, outageLimit, "both carts have their receipts", func() error {
		return errors.Join(want("receipts", 1, len(o.receipts(bought))), want("receipts", 1, len(o.receipts(left))))
	})
	require.Equal(o.t, bought+" suppressed/purchased", o.receipts(bought)[0].String())
	require.Equal(o.t, left+" delivered/sent", o.receipts(left)[0].String())
	require.Equal(o.t, []string{o.fence[1].email}, o.mails())
	o.t.Logf("receipts: %s, ordered while Kafka was away; %s, %s after the spool was empty",
		o.receipts(bought)[0], o.receipts(left)[0], o.letterTo(o.fence[1].email).Sub(o.emptied()).Round(time.Millisecond))
}

func (o *outage) letterTo(address string) time.Time {
	for _, l := range o.mail.all() {
		if l.to == address {
			return l.at
		}
	}
	return time.Time{}
}

// refusals: every call was answered, with 200, or with 503 and when to come again. On a machine that is its own, 503 means
// that the spool was full; another one may be too slow for Redis to answer in time.
func (o *outage) refusals() {
	o.t.Helper()
	calls := o.load.between(time.Time{}, time.Now())
	for _, c := range calls {
		switch {
		case c.status == http.StatusOK:
		case c.status == http.StatusServiceUnavailable:
			require.True(o.t, c.retryAfter, "503 without Retry-After")
			require.True(o.t, o.full(c) || !*outageJudge, "503 %s after Kafka went away, though the spool had room", c.sent.Sub(o.gone))
		case c.status != 0 || *outageJudge:
			o.t.Errorf("answered %d, %s after Kafka went away", c.status, c.sent.Sub(o.gone))
		}
	}
	if *outageSpool == 0 {
		return
	}
	require.Positive(o.t, statuses(calls)[http.StatusServiceUnavailable], "the spool was never full")
	after := o.load.between(o.emptied(), time.Now())
	require.Equal(o.t, map[int]int{http.StatusOK: len(after)}, statuses(after), "once the spool is empty")
}

// full says whether the spool was, as of the looks around a call.
func (o *outage) full(c call) bool {
	i := slices.IndexFunc(o.sights, func(s sight) bool { return !s.at.Before(c.done) })
	for _, s := range o.sights[max(i-2, 0):] {
		if s.bytes >= fullFrom*s.limit {
			return true
		}
		if s.at.After(c.done.Add(2 * outageLooks)) {
			break
		}
	}
	return false
}

// memory is a line of the process's status, in bytes.
func (p *process) memory(line string) int64 {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	require.NoError(p.t, err)
	_, rest, ok := strings.Cut(string(text), line)
	require.True(p.t, ok)
	var kb int64
	_, err = fmt.Sscan(rest, &kb)
	require.NoError(p.t, err)
	return kb << 10
}
