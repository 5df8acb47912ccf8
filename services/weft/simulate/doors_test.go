package simulate

import (
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

// TestDoors plays the directed schedules of the collector.
func TestDoors(t *testing.T) {
	f := newFiles(t)
	for _, d := range doors() {
		t.Run(d.name, func(t *testing.T) {
			s := &shape{name: d.name, services: d.services, owners: d.owners, load: family(), trouble: 14 * time.Second, batch: 4}
			for seed := range uint64(plays) {
				d.play(t, s, 1+seed, f)
			}
		})
	}
}
