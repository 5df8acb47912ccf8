package simulate

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/topic"
)

// directed is a schedule whose events and faults are written down: one of the ten tests that the protocol's
// executable model names, because each was a violation of some design before.
type directed struct {
	name     string
	owners   int
	services []string
	acts     func(w *world) []*sentEvent
	script   func(w *world) func(p *process, m *message, v *verdict)
	faults   int                  // how many must have befallen the schedule, at least
	spool    bool                 // collectors have one
	check    func(w *world) error // beside the oracle
}

// The ids of the directed schedules. A profile's id is that of its first node: user, then e-mail, then device.
func user(v string) event.Identifier { return event.Identifier{Type: event.UserID, Value: v} }
func email(v string) event.Identifier {
	return event.Identifier{Type: event.Email, Value: v + "@example.com"}
}
func device(v string) event.Identifier { return event.Identifier{Type: event.AnonymousID, Value: v} }

// seconds is an instant of a schedule.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func identify(at float64, ids ...event.Identifier) *sentEvent {
	return &sentEvent{at: seconds(at), ids: ids}
}

func fills(at float64, cart string, ids ...event.Identifier) *sentEvent {
	return &sentEvent{at: seconds(at), name: "Product Added", cart: cart, ids: ids}
}

func orders(at float64, ids ...event.Identifier) *sentEvent {
	return &sentEvent{at: seconds(at), name: "Order Completed", ordered: true, ids: ids}
}

// stamped is an event that claims another time than that of its sending.
func (e *sentEvent) stamped(at float64) *sentEvent {
	e.stamp = seconds(at)
	return e
}

// lying finds a value whose partition of some topic is p: what is keyed by it lies there.
func lying(p int, format string, key func(string) string) string {
	for i := 0; ; i++ {
		if v := fmt.Sprintf(format, i); topic.Partition([]byte(key(v)), partitions) == p {
			return v
		}
	}
}

// once is true the first times that it is asked.
type once struct {
	mu   sync.Mutex
	left int
}

func (o *once) more() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.left--
	return o.left >= 0
}

// every is true each n-th time.
type every struct {
	mu   sync.Mutex
	n, i int
}

func (e *every) hit() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.i++
	return e.i%e.n == 0
}

// family is the load of the schedules that are not about one person: several people, merges, carts, orders.
func family() load {
	return load{people: 3, span: 6 * time.Second, views: 2, carts: 8, orders: 5, duels: 5, unions: 5, doubles: 2}
}

func (w *world) nodeOf(id event.Identifier) string {
	n, ok := w.files.rules.Node(id)
	if !ok {
		panic("an identifier that names nobody")
	}
	return n.String()
}

// foreign says whether a process writes to a slot of another one: by the group, as it is now.
func (w *world) foreign(p *process, stage string, m *message) bool {
	if m.class != writes {
		return false
	}
	for part := range int32(partitions) {
		if !strings.Contains(m.label, fmt.Sprintf("{%s%s:%d}", w.topics.Prefix, stage, part)) {
			continue
		}
		group := w.kafka.GroupInfo(w.topics.Group(stage, w.topics.EventsIdentified()))
		for i := range group.Members {
			if group.Members[i].ClientID == p.name {
				return !slices.Contains(group.Members[i].Assignment[w.topics.EventsIdentified()], part)
			}
		}
	}
	return false
}

// reads says whether the process has asked for a partition of a topic.
func (p *process) reads(topicName string, partition int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for label := range p.counts {
		if strings.HasPrefix(label, "Fetch") && strings.Contains(label, fmt.Sprintf("%s/%d", topicName, partition)) {
			return true
		}
	}
	return false
}

// plays is how often a directed schedule is played: requests travel at another pace each time.
const plays = 3

// play plays a directed schedule once.
func (d *directed) play(t *testing.T, s *shape, seed uint64, f files) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w, err := newWorld(s, seed, f)
		require.NoError(t, err)
		if d.acts != nil {
			w.acts = d.acts(w)
		}
		if d.script != nil {
			w.script = d.script(w)
		}
		w.last = d.check
		bad := w.run()
		w.mu.Lock() // connections that end late still write down that they do
		defer w.mu.Unlock()
		require.Empty(t, bad, "%s", strings.Join(w.journal, "\n"))
		total := 0
		for _, n := range w.injected {
			total += n
		}
		require.GreaterOrEqual(t, total, d.faults, "faults that befell it: %v\n%s", w.injected, strings.Join(w.journal, "\n"))
	})
}

// TestTen plays the ten tests of the model by name.
func TestTen(t *testing.T) {
	f := newFiles(t)
	for _, d := range ten() {
		t.Run(d.name, func(t *testing.T) {
			s := &shape{name: d.name, services: d.services, owners: d.owners, load: family(), trouble: 14 * time.Second, batch: 4}
			for seed := range uint64(plays) {
				d.play(t, s, 1+seed, f)
			}
		})
	}
	t.Run("10_older_redis", func(t *testing.T) {
		for _, name := range []string{"regress", "cluster", "group"} {
			for seed := range uint64(3) {
				i := slices.IndexFunc(shapes(), func(s *shape) bool { return s.name == name })
				r := play(t, shapes()[i], 100+seed, f)
				require.Empty(t, r.violations, "%s\n%s", name, strings.Join(r.journal, "\n"))
				require.NotEmpty(t, r.injected)
			}
		}
	})
}

// ten are those that need a script; the tenth is of shapes.
func ten() []directed {
	three := []string{stitch, build, activate}
	return []directed{
		{
			name: "1_late_first_copy", owners: 1, services: three, faults: 10,
			script: func(*world) func(*process, *message, *verdict) {
				third := every{n: 3}
				return func(_ *process, m *message, v *verdict) {
					if m.class == writes && third.hit() {
						v.fault, v.delay = late, 700*time.Millisecond
					}
				}
			},
		},
		{
			name: "2_stopped_between_script_and_effects", owners: 2, services: three, faults: 4,
			script: func(w *world) func(*process, *message, *verdict) {
				beforePublish, beforeMoves := once{left: 3}, once{left: 3}
				return func(p *process, m *message, v *verdict) {
					switch {
					case w.now() < 2*time.Second || w.now() > 12*time.Second:
					case m.class == produces && p.service != activate && beforePublish.more():
						v.fault, v.delay = freezeBefore, 3*session
					case w.foreign(p, topic.StageBuilder, m) && beforeMoves.more():
						v.fault, v.delay = freezeBefore, 3*session
					}
				}
			},
		},
		{
			name: "3_order_in_a_merged_loser", owners: 2, services: three, faults: 1,
			acts: func(w *world) []*sentEvent {
				vip, mail := w.apart()
				return []*sentEvent{
					identify(0.5, device("c1"), user(vip), email(vip)),
					fills(1, "cart", device("c1"), user(vip)),
					orders(2, device("l")),                  // L
					identify(2.5, device("l"), email(mail)), // L is merged into W
					identify(3, user(vip), email(mail)),     // W into V
				}
			},
			script: func(w *world) func(*process, *message, *verdict) {
				o := once{left: 1}
				return func(p *process, m *message, v *verdict) {
					// W is frozen, its payload with the order not home yet.
					if p.service == activate && w.now() > seconds(3) && w.foreign(p, topic.StageDecide, m) && o.more() {
						v.fault, v.delay = freezeBefore, 3*session
					}
				}
			},
		},
		{
			name: "4_same_link_from_two_partitions", owners: 2, services: three, faults: 2,
			acts: func(w *world) []*sentEvent {
				vip, mail := w.apart()
				x, y := lying(0, "x%d", same), lying(1, "y%d", same)
				return []*sentEvent{
					identify(0.4, device("c1"), user(vip), email(vip)),
					fills(1, "cart", device("c1"), user(vip)), // due at 5
					orders(2, email(mail)),
					identify(4.8, device(y), user(vip), email(mail)),  // acknowledged before the cart is due
					identify(5.15, device(x), user(vip), email(mail)), // behind the walk's start, but first to be worked on
				}
			},
			script: func(w *world) func(*process, *message, *verdict) {
				slowly, paused := once{left: 1}, once{left: 1}
				return func(p *process, m *message, v *verdict) {
					switch {
					case p.service == stitch && m.class == idles && w.now() > seconds(4.5) && w.now() < seconds(4.8) &&
						p.reads(w.topics.EventsCollected(), 1) && slowly.more():
						v.fault, v.delay = freezeAfter, seconds(5.6)-w.now() // Y is read late
					case p.service == stitch && m.class == writes && w.now() > seconds(5.15) &&
						strings.Contains(m.label, topic.StageStitcher+":0}") && paused.more():
						v.fault, v.delay = freezeBefore, 3*session // linked by X, and not in any outbox
					}
				}
			},
		},
		{
			name: "5_acknowledged_after_its_due_time", owners: 2, services: three, faults: 1,
			acts: func(w *world) []*sentEvent {
				vip, mail := w.apart()
				es := []*sentEvent{
					identify(0.5, device("c1"), user(vip), email(vip)),
					orders(2, email(mail)).stamped(2),
					identify(5.9, user(vip), email(mail)),
					fills(6, "cart", device("c1"), user(vip)).stamped(1),
				}
				for i := range 12 { // others keep the fence walking
					who := fmt.Sprint("other", i)
					es = append(es, identify(0.6, device(who), user(who), email(who)), fills(1+0.2*float64(i), "cart of "+who, device(who)))
				}
				return es
			},
			script: func(w *world) func(*process, *message, *verdict) {
				_, mail := w.apart()
				profile, o := w.nodeOf(email(mail)), once{left: 1}
				return func(p *process, m *message, v *verdict) {
					if p.service == activate && w.now() > seconds(5.9) && m.class == writes && strings.Contains(string(m.bytes), profile) && o.more() {
						v.fault, v.delay = freezeAfter, 2*session
					}
				}
			},
		},
		{
			name: "6_killed_between_link_and_outbox", owners: 1, services: three, faults: 2,
			script: func(w *world) func(*process, *message, *verdict) {
				o := every{n: 7}
				return func(p *process, m *message, v *verdict) {
					// A node of the graph is set: what was linked is not in any outbox yet.
					if p.service == stitch && m.class == writes && w.now() > time.Second && w.now() < 12*time.Second &&
						strings.Contains(m.label, w.graphTag()) && o.hit() {
						v.fault = crashAfter
					}
				}
			},
			check: (*world).checkMerges,
		},
		{
			name: "7_crossing_unions", owners: 2, services: []string{stitch}, faults: 4,
			acts: func(*world) []*sentEvent {
				var es []*sentEvent
				for i := range 24 { // on both partitions at once, always in other pairs
					a, b := i%7, (i*3+2)%7
					es = append(es, identify(1+0.01*float64(i), device(fmt.Sprint("d", a)), user(fmt.Sprint("u", b)), email(fmt.Sprint("u", (a+i)%5))))
				}
				return es
			},
			script: func(*world) func(*process, *message, *verdict) {
				sixth, ninth := every{n: 6}, every{n: 9}
				return func(p *process, m *message, v *verdict) {
					if p.service != stitch || m.class != writes {
						return
					}
					if sixth.hit() {
						v.fault, v.delay = late, 100*time.Millisecond
					} else if ninth.hit() {
						v.fault = cutAfter
					}
				}
			},
			check: (*world).checkMembers,
		},
		{
			name: "8_offset_commit_late", owners: 2, services: []string{stitch, write}, faults: 5,
			script: func(w *world) func(*process, *message, *verdict) {
				third := every{n: 3}
				return func(_ *process, m *message, v *verdict) {
					if m.class == commits && w.now() < 12*time.Second && third.hit() {
						v.fault, v.delay = late, 3*time.Second
					}
				}
			},
		},
		{
			name: "9_duplicate_move_through_frozen_chain", owners: 2, services: three, faults: 1,
			acts: func(w *world) []*sentEvent {
				l := device(lying(0, "l%d", func(v string) string { return w.nodeOf(device(v)) }))
				mail := email(lying(1, "w%d", func(v string) string { return w.nodeOf(email(v)) }))
				v := user(lying(1, "v%d", func(v string) string { return w.nodeOf(user(v)) }))
				es := []*sentEvent{
					identify(0.5, l), identify(0.6, l), identify(0.7, mail), identify(0.8, v),
					identify(2.5, l, mail), // L into W
					identify(3.2, mail, v), // W into V, while the owner of L is stopped
				}
				for i := range 10 { // late for L, as long as somebody's cache is stale
					es = append(es, identify(2.55+0.05*float64(i), l))
				}
				return es
			},
			script: func(w *world) func(*process, *message, *verdict) {
				paused := once{left: 2}
				return func(p *process, m *message, v *verdict) {
					// L's move is in W, and its owner does not know: whoever comes next brings it once more.
					if p.service == build && w.now() > seconds(2.5) && w.foreign(p, topic.StageBuilder, m) && paused.more() {
						v.fault, v.delay = freezeAfter, 3*session
					}
				}
			},
		},
	}
}

func same(s string) string { return s }

// apart are a user and an e-mail address whose profiles lie on different partitions.
func (w *world) apart() (vip, mail string) {
	return lying(0, "vip%d", func(v string) string { return w.nodeOf(user(v)) }), lying(1, "mail%d", func(v string) string { return w.nodeOf(email(v)) })
}

// checkMerges: the merge of every profile that is no more is published, with the event that linked it first
// among those of the same link.
func (w *world) checkMerges() error {
	recs, err := w.raw(w.topics.EventsIdentified())
	if err != nil {
		return err
	}
	causes := map[string]string{}
	for i := range recs {
		if header(&recs[i], topic.HeaderKind) != string(topic.KindMerge) {
			continue
		}
		m, err := identity.ParseMerge(recs[i].Value)
		if err != nil {
			return err
		}
		if old, ok := causes[m.Loser]; ok && old != m.Cause.MessageID {
			return fmt.Errorf("%s is merged because of %s and of %s", m.Loser, old, m.Cause.MessageID)
		}
		causes[m.Loser] = m.Cause.MessageID
	}
	all := w.expect(func(*sentEvent) bool { return true })
	for n := range all.people.parent {
		if causes[n.String()] == "" {
			return fmt.Errorf("nobody published that %s was merged", n)
		}
	}
	return nil
}

// checkMembers: the graph's components are those of the oracle, member by member.
func (w *world) checkMembers() error {
	all := w.expect(func(*sentEvent) bool { return true })
	want := map[identity.Node][]identity.Node{}
	for _, e := range all.events {
		for _, id := range e.ids {
			n := all.people.node(id)
			root := all.people.root(n)
			if !slices.Contains(want[root], n) {
				want[root] = append(want[root], n)
			}
		}
	}
	graph := identity.NewGraph(w.doors.store, w.topics.Prefix)
	for _, members := range want {
		slices.SortFunc(members, identity.Node.Compare)
		for _, n := range members {
			got, err := identity.Members(w.ctx, graph, n)
			if err != nil {
				return err
			}
			if !slices.Equal(got, members) {
				return fmt.Errorf("members of %s are %v, must be %v", n, got, members)
			}
		}
	}
	return nil
}
