package simulate

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// doors are directed schedules of the collector: what a 200 means, and what the fence counts at its first edge.
func doors() []directed {
	whole := []string{collect, stitch, build, activate}
	return []directed{
		{
			// The door dies once Kafka has the events and before its source hears so, and what else it says is lost:
			// the source calls again, and everything counts once.
			name: "kafka_has_it_and_the_source_does_not_know", owners: 2, services: whole, faults: 6,
			script: func(w *world) func(*process, *message, *verdict) {
				dies, lost := every{n: 5}, every{n: 3}
				return func(p *process, m *message, v *verdict) {
					switch {
					case p.service != collect || w.now() > 12*time.Second:
					case m.class == produces && dies.hit():
						v.fault = crashAfter
					case m.class == asks && lost.hit():
						v.fault = cutAfter
					}
				}
			},
		},
		{
			// The call is heard after the source has given it up and called again.
			name: "call_lands_behind_its_retry", owners: 2, services: whole, faults: 6,
			script: func(*world) func(*process, *message, *verdict) {
				fourth := every{n: 4}
				return func(_ *process, m *message, v *verdict) {
					if m.class == asks && fourth.hit() {
						v.fault, v.delay = late, 2500*time.Millisecond
					}
				}
			},
		},
		{
			// The order is acknowledged: it is in the inbox. The inlet has read it, and stops before it passes it on.
			name: "order_in_a_stopped_inlet", owners: 2, services: whole, faults: 1,
			acts: func(*world) []*sentEvent {
				o := orders(4.5, user("vip"))
				o.inlet = true
				return []*sentEvent{
					identify(0.5, device("c1"), user("vip"), email("vip")),
					fills(1, "cart", device("c1"), user("vip")), // due at 5
					o,
				}
			},
			script: func(w *world) func(*process, *message, *verdict) {
				stops := once{left: 1}
				return func(p *process, m *message, v *verdict) {
					if p.service == collect && m.class == produces && w.now() > seconds(4.5) && strings.Contains(m.label, w.topics.EventsCollected()) && stops.more() {
						v.fault, v.delay = freezeBefore, 3*session
					}
				}
			},
		},
	}
}

// spools are directed schedules of what the door keeps on its disk while Kafka does not answer.
func spools() []directed {
	whole := []string{collect, stitch, build, activate}
	return []directed{
		{
			// Kafka is slower than the door's patience, and writes nevertheless: what is spooled and drained is there a second
			// time. Whoever sent it heard 200 at the first call, and the stitcher drops the copy.
			name: "written_though_given_up", owners: 2, services: whole, faults: 1, spool: true,
			acts: func(*world) []*sentEvent {
				es := []*sentEvent{identify(1, device("w1"), user("vip"), email("vip"))}
				for i := range 8 {
					es = append(es, fills(2+0.2*float64(i), "cart", device("w1"), user("vip")))
				}
				return append(es, orders(4, user("vip")))
			},
			script: func(w *world) func(*process, *message, *verdict) {
				return func(p *process, m *message, v *verdict) {
					if p.service == collect && m.class == produces && w.now() > seconds(1.9) && w.now() < seconds(3) {
						v.fault, v.there = slow, 2*spoolAfter
					}
				}
			},
			check: func(w *world) error {
				twice, again := 0, 0
				for id, s := range w.stored {
					if s.copies > 1 {
						twice++
					}
					if w.heardOf(id) > 1 {
						again++
					}
				}
				if twice == 0 || again > 0 {
					return fmt.Errorf("%d events are on events.collected twice, and %d were sent again", twice, again)
				}
				return nil
			},
		},
		{
			// The order is acknowledged: it is on the disk of a door that dies, again and again, before Kafka takes it.
			name: "order_in_a_spool", owners: 1, services: whole, faults: 5, spool: true,
			acts: func(*world) []*sentEvent {
				return []*sentEvent{
					identify(0.5, device("c1"), user("vip"), email("vip")),
					fills(1, "cart", device("c1"), user("vip")), // due at 5
					orders(4.2, user("vip")),
				}
			},
			script: func(w *world) func(*process, *message, *verdict) {
				third := every{n: 3}
				return func(p *process, m *message, v *verdict) {
					if p.service != collect || m.class != produces || w.now() < seconds(4) || w.now() > seconds(13) {
						return
					}
					if v.fault = cutBefore; w.now() > seconds(6) && third.hit() {
						v.fault = crashBefore
					}
				}
			},
			check: func(w *world) error {
				if n := w.seen["receipt purchased"]; n != 1 || w.seen["messages"] != 0 {
					return fmt.Errorf("%d receipts say purchased, and there are %d messages", n, w.seen["messages"])
				}
				return nil
			},
		},
		{
			// The door dies when it would register its spool: it has acknowledged nothing yet.
			name: "dies_before_it_is_registered", owners: 1, services: whole, faults: 2, spool: true,
			acts: func(*world) []*sentEvent {
				return []*sentEvent{
					identify(0.5, device("c1"), user("vip"), email("vip")),
					fills(1, "cart", device("c1"), user("vip")), // due at 5
					orders(4.3, user("vip")),
				}
			},
			script: func(w *world) func(*process, *message, *verdict) {
				dies := once{left: 1}
				return func(p *process, m *message, v *verdict) {
					if p.service != collect || w.now() < seconds(4) || w.now() > seconds(12) {
						return
					}
					switch {
					case m.class == produces:
						v.fault = cutBefore
					case strings.Contains(m.label, "spools}") && strings.Contains(m.label, "HSET") && dies.more():
						v.fault = crashBefore
					}
				}
			},
		},
		{
			// The machine goes down between the write and the sync, and right behind the sync: what was not synced was not
			// acknowledged, and the sender comes again.
			name: "machine_goes_down_while_it_spools", owners: 2, services: whole, faults: 6, spool: true,
			script: func(w *world) func(*process, *message, *verdict) {
				before, behind := every{n: 5}, every{n: 3}
				return func(p *process, m *message, v *verdict) {
					if p.service != collect || w.now() < seconds(2) || w.now() > seconds(12) {
						return
					}
					switch {
					case m.class == produces:
						v.fault = cutBefore
					case m.class == disks && strings.HasSuffix(m.label, "sync") && before.hit():
						v.fault = crashBefore
					case m.class == disks && strings.HasSuffix(m.label, "sync") && behind.hit():
						v.fault = crashAfter
					}
				}
			},
		},
	}
}

// TestDoors plays the directed schedules of the collector.
func TestDoors(t *testing.T) {
	f := newFiles(t)
	for _, d := range append(doors(), spools()...) {
		t.Run(d.name, func(t *testing.T) {
			s := &shape{name: d.name, services: d.services, owners: d.owners, load: family(), trouble: 14 * time.Second, batch: 4}
			for seed := range uint64(plays) {
				if d.spool {
					s.outages, f = 1, newFiles(t) // the script says when
				}
				d.play(t, s, 1+seed, f)
			}
		})
	}
}
