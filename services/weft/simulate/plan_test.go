package simulate

import (
	"hash/fnv"
	"slices"
	"strings"
	"time"
)

// fault is what befalls one request.
type fault string

const (
	none         fault = ""
	crashBefore  fault = "crash before"  // the process dies, the request never leaves
	crashAfter   fault = "crash after"   // carried out, the process dies before it hears of it
	crashLate    fault = "crash, late"   // the process dies, the request is carried out later
	cutBefore    fault = "cut before"    // the connection is lost, the request with it
	cutAfter     fault = "cut after"     // carried out, the answer is lost
	late         fault = "late"          // the connection is lost, the request is carried out later: after its retry
	refuse       fault = "refused"       // answered with an error, not carried out
	freezeBefore fault = "freeze before" // the process stops with the request still inside
	freezeAfter  fault = "freeze after"  // carried out, the process stops before it hears of it
	slow         fault = "slow"          // takes long
	// carried out and answered with an error: by a leader whose followers were late, as Kafka's do
	timedOut     fault = "carried out, answered REQUEST_TIMED_OUT"
	tooFewCopies fault = "carried out, answered NOT_ENOUGH_REPLICAS_AFTER_APPEND"
)

// verdict is what the plan says of one request.
type verdict struct {
	fault fault
	delay time.Duration // how long it is late or frozen
	there time.Duration // way of the request
	back  time.Duration // way of the answer
}

// chance is a probability per request, in millionths.
type chance map[fault]int

// shape is a kind of schedule.
type shape struct {
	name    string
	owners  int // processes per stage
	faults  map[class]chance
	load    load
	trouble time.Duration // for how long there are faults
	// events that befall the world, as many as said, at instants of the seed
	rebalances int  // a process more or less of a stage
	recreate   int  // the group of a stage loses its offsets
	config     int  // the journey file changes
	batch      int  // most records per batch, drawn per process from 1 to this
	idempotent bool // the channel knows messages it has taken
	regress    regress
	services   []string
	slow       bool          // one partition of everything is slow
	skew       time.Duration // by how much clocks are wrong, at most; 0: they agree
	outages    int           // times in which Kafka takes nothing from the doors; collectors have a spool then
}

// has says whether a service runs in schedules of this shape.
func (s *shape) has(service string) bool { return slices.Contains(s.services, service) }

// regress is how Redis loses what it acknowledged.
type regress int

const (
	never   regress = iota
	allOf           // all of it goes back to an earlier moment
	oneNode         // one node of a cluster does: a third of the hash slots
)

// draw is a number that only depends on the seed and the words.
func (w *world) draw(words ...string) uint64 {
	h := fnv.New64a()
	var b [8]byte
	for i := range b {
		b[i] = byte(w.seed >> (8 * i))
	}
	_, _ = h.Write(b[:]) // never fails
	for _, s := range words {
		_, _ = h.Write([]byte(s))
		_, _ = h.Write([]byte{0})
	}
	x := h.Sum64() // FNV mixes its last bytes badly: finish as splitmix64 does
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// between draws a duration.
func (w *world) between(lo, hi time.Duration, words ...string) time.Duration {
	return lo + time.Duration(w.draw(words...)%uint64(hi-lo)) //nolint:gosec // not negative
}

// upTo draws a number from 0 to n-1.
func (w *world) upTo(n int, words ...string) int {
	return int(w.draw(words...) % uint64(n)) //nolint:gosec // small
}

const (
	// wayLeast and wayMost bound how long a request or an answer is on its way.
	wayLeast = 200 * time.Microsecond
	wayMost  = 2 * time.Millisecond
	// session is after what time a silent member loses its partitions.
	session = 2 * time.Second
)

// judge is the seed's plan for a request: the n-th with this label of a process.
func (w *world) judge(p *process, m *message, n string) verdict {
	v := verdict{
		there: w.between(wayLeast, wayMost, p.name, m.label, n, "there"),
		back:  w.between(wayLeast, wayMost, p.name, m.label, n, "back"),
	}
	if w.script != nil && !p.safe {
		w.script(p, m, &v)
		return v
	}
	if !w.troubled() || p.safe {
		return v
	}
	if w.away(p, m) {
		v.fault = cutBefore
		return v
	}
	if w.shape.slow && (strings.HasSuffix(m.label, "/0") || strings.HasSuffix(m.label, ":0}")) {
		v.there += w.between(20*time.Millisecond, 400*time.Millisecond, p.name, m.label, n, "slow partition")
	}
	x := w.upTo(1_000_000, p.name, m.label, n, "fault")
	for _, f := range []fault{
		crashBefore, crashAfter, crashLate, cutBefore, cutAfter, late, refuse, freezeBefore, freezeAfter, slow, timedOut, tooFewCopies,
	} {
		c := w.shape.faults[m.class][f]
		if x >= c {
			x -= c
			continue
		}
		v.fault = f
		break
	}
	switch v.fault {
	case late, crashLate:
		v.delay = w.between(20*time.Millisecond, 4*time.Second, p.name, m.label, n, "late")
	case freezeBefore, freezeAfter:
		v.delay = w.between(session/2, 3*session, p.name, m.label, n, "frozen")
	case slow:
		v.there += w.between(100*time.Millisecond, 3*time.Second, p.name, m.label, n, "slow")
	case refuse:
		if m.class != commits {
			v.fault = cutBefore
		}
	}
	return v
}
