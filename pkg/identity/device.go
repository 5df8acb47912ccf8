package identity

import (
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/weft-cdp/weft/pkg/event"
)

// Devices says what becomes of devices that several people use, and of those whose owner has logged out.
type Devices struct {
	// Idle is how long nothing may be heard of such a device before its slice of time ends.
	Idle time.Duration
	// KeepOwner lets what follows a log-out, on a device that is not shared, be its owner's; else it is nobody's.
	KeepOwner bool
	// Slice is the profile of a slice of a device's time. No identifier has it, and nothing ever joins it.
	Slice func(device Node, number int64) Node
}

// quietParts is into how many parts a device's idle time is cut: what is heard of it is written once in such a part, at
// most. So a slice ends when nothing was heard for three to four of them.
const quietParts = 4

// deviceKind is what a device is, beside the component that its node stands in.
type deviceKind byte

const (
	devicePlain     deviceKind = iota // as any other; a state of before may have to be taken back yet
	deviceShared                      // several people use it: it joins nobody any more
	deviceLoggedOut                   // its owner has logged out
	deviceKinds
)

// sharedDevice is the state of a device that is not simply its person's. Times are milliseconds since 1970, by the time of
// the events, not of the clock.
type sharedDevice struct {
	kind  deviceKind
	told  bool  // that it is shared, or that somebody has logged out, is known to be in Kafka, and nothing older behind it
	round int64 // grows whenever it must be published again
	since int64 // of the record that showed it
	// slice is the stretch of time that events without a name belong to now, before the one before it; zero: none.
	slice, before slice
	seen          int64 // of the last record that was noted: see quietParts
	owner         Node  // who is logged in; zero: nobody
}

// slice is a stretch of a device's time: from a log-in to the log-out, the next log-in, or until nothing is heard any more.
type slice struct {
	start  int64 // of its first record
	number int64 // start, unless several begin within a millisecond: what its node is made of
}

// begin begins a slice.
func (d *sharedDevice) begin(at int64, who Node) {
	d.before = d.slice
	d.slice = slice{start: at, number: max(at, d.slice.number+1)}
	d.seen, d.owner = at, who
}

// see is the state behind a record of a time, of somebody known or nobody. A record of before the slice changes nothing: what
// was decided stays.
func (d sharedDevice) see(at int64, who Node, logOut bool, idle time.Duration) sharedDevice {
	quiet := at - d.seen
	switch {
	case at < d.slice.start:
	case logOut:
		d.begin(at, Node{})
	case !who.IsZero() && who != d.owner, quiet > idle.Milliseconds():
		d.begin(at, who)
	case quiet*quietParts >= idle.Milliseconds():
		d.seen = at
	}
	return d
}

// number is that of the slice that a record of nobody known belongs to. One of before the two slices that are remembered
// belongs to a slice of its own, as long as the idle time: a function of its time alone, below all others.
func (d *sharedDevice) number(at int64, idle time.Duration) int64 {
	switch {
	case at >= d.slice.start:
		return d.slice.number
	case d.before.number != 0 && at >= d.before.start:
		return d.before.number
	}
	return -1 - at/idle.Milliseconds()
}

// state is what is said of the device outside.
func (d *sharedDevice) state(n Node) NodeState {
	s := NodeState{Node: n.String(), Round: d.round}
	at := time.UnixMilli(d.since).UTC()
	switch d.kind {
	case deviceShared:
		s.Shared = &at
	case deviceLoggedOut:
		s.LoggedOut = &at
	}
	return s
}

// become makes it another kind of device, as of a time, which is to be published.
func (d *sharedDevice) become(kind deviceKind, at int64) {
	d.kind, d.since, d.told = kind, at, false
	d.round++
}

// published is the device behind the publication of a state. Another state than its own, by somebody slow, stands in Kafka
// behind what was published before: so its own must be published again, and what is on its way does not count.
func (d sharedDevice) published(s *NodeState) sharedDevice {
	switch own := d.state(Node{}); {
	case !own.same(s):
		d.become(d.kind, d.since)
	case d.round == s.Round:
		d.told = true
	}
	return d
}

// same says whether two states of a node say the same of it as a device.
func (s *NodeState) same(o *NodeState) bool {
	equal := func(a, b *time.Time) bool { return (a == nil) == (b == nil) && (a == nil || a.Equal(*b)) }
	return equal(s.Shared, o.Shared) && equal(s.LoggedOut, o.LoggedOut)
}

// restored is the device of a state that was published; nil: it is as any other. Its slices are forgotten: the next record
// begins one.
func (s *NodeState) restored() *sharedDevice {
	switch {
	case s.Shared != nil:
		return &sharedDevice{kind: deviceShared, told: true, round: s.Round, since: s.Shared.UnixMilli()}
	case s.LoggedOut != nil:
		return &sharedDevice{kind: deviceLoggedOut, told: true, round: s.Round, since: s.LoggedOut.UnixMilli()}
	}
	return nil
}

// forgotten is what remains where the people of a device are forgotten.
func (d *sharedDevice) forgotten() *sharedDevice {
	return &sharedDevice{kind: d.kind, told: d.told, round: d.round, since: d.since}
}

// deviceTold is, in the first byte of an encoded device, beside its kind.
const deviceTold = 1 << 7

// append encodes: kind and told (1 byte), round, since, start and number of both slices, seen (varints), owner (16 bytes).
func (d *sharedDevice) append(b []byte) []byte {
	head := byte(d.kind)
	if d.told {
		head |= deviceTold
	}
	b = append(b, head)
	for _, x := range [...]int64{d.round, d.since, d.slice.start, d.slice.number - d.slice.start, d.before.start, d.before.number - d.before.start, d.seen} {
		b = binary.AppendVarint(b, x)
	}
	return append(b, d.owner[:]...)
}

func (d *decoder) device() *sharedDevice {
	head := d.take(1)[0]
	s := &sharedDevice{kind: deviceKind(head &^ deviceTold), told: head&deviceTold != 0}
	d.bad = d.bad || s.kind >= deviceKinds
	for _, x := range [...]*int64{&s.round, &s.since, &s.slice.start, &s.slice.number, &s.before.start, &s.before.number, &s.seen} {
		*x = d.varint()
	}
	s.slice.number += s.slice.start
	s.before.number += s.before.start
	s.owner = d.node()
	return s
}

// slices is the profile of a slice of a device's time.
func (r *Rules) slices(device Node, number int64) Node {
	return r.node(r.slice, TypeDeviceSlice, device.String()+"/"+strconv.FormatInt(number, 10), "")
}

// What a rules file may say of devices, and what holds where it says nothing.
const (
	defaultIdle = 30 * time.Minute // what web analytics take for the end of a visit
	minIdle     = time.Minute      // below, events that a browser sends late would begin slices
	maxIdle     = 7 * 24 * time.Hour
	maxLogOut   = 100
)

// defaultLogOut is how log-outs are called. Segment's spec has the first one.
func defaultLogOut() []string {
	return []string{"Signed Out", "Sign Out", "Logged Out", "Log Out", "Logout"}
}

// devices reads {inactivity, log_out, after_log_out}.
func (r *specReader) devices(path string, n *yaml.Node, s *spec) {
	r.object(n, path, map[string]func(string, *yaml.Node){
		"inactivity": func(path string, n *yaml.Node) {
			d, err := time.ParseDuration(r.text(path, n))
			if err != nil || d < minIdle || d > maxIdle {
				r.fault(n, path, "want a duration from %s to %s, such as 30m", minIdle, maxIdle)
				return
			}
			s.devices.Idle = d
		},
		"log_out":       func(path string, n *yaml.Node) { s.logOut = r.texts(path, n, maxLogOut) },
		"after_log_out": func(path string, n *yaml.Node) { s.devices.KeepOwner = r.oneOf(path, n, "nobody", "owner") == "owner" },
	})
}

// Devices is how shared devices are treated.
func (r *Rules) Devices() *Devices {
	d := r.devices
	d.Slice = r.slices
	return &d
}

// LogsOut says whether an event is a log-out.
func (r *Rules) LogsOut(e *event.Event) bool {
	if e.Type != event.Track || len(e.Name) > maxLogOutBytes {
		return false
	}
	_, ok := r.logOut[strings.ToLower(strings.TrimSpace(e.Name))]
	return ok
}

// maxLogOutBytes is the longest name of an event that is looked at: names of log-outs are short.
const maxLogOutBytes = 200
