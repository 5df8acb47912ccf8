package simulate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// root is the repository, seen from this package.
const root = "../../.."

// mutation is a deliberate fault in production code: the simulation must catch it.
type mutation struct {
	name   string
	breaks string // what it takes away
	edits  []edit
	shapes string // where to look for it
	graph  bool   // the simulation of the identity graph must catch it, which has a shape of its own (pkg/identity),
	from   uint64 // from this seed on: where schedules that show it are rare
}

// edit replaces one place of a file.
type edit struct{ file, old, new string }

// mutations are the faults. Each takes away one thing that the protocol needs; where the sources change, the
// edits must follow, which TestMutationsApply sees to.
func mutations() []mutation {
	return append(graphMutations(), []mutation{
		{
			name: "commit-before-publish", breaks: "Kafka's commit, which the fence believes, comes behind publishing and moves",
			edits: []edit{{
				"pkg/keyed/worker.go", "	w.settle(n, next, now)\n	return w.effects(ctx, r)\n",
				"	w.settle(n, next, now)\n	if err := w.commit(ctx); err != nil {\n		return err\n	}\n	return w.effects(ctx, r)\n",
			}},
			shapes: "race,merge",
		},
		{
			name: "answered-before-kafka", breaks: "a door says 200 only when Kafka has acknowledged",
			edits: []edit{{
				"services/collector/call.go", "		err = d.collected.SendAll(ctx, p.recs)\n",
				"		go func() { _ = d.collected.SendAll(context.WithoutCancel(ctx), p.recs) }()\n",
			}},
			shapes: "door,all",
		},
		{
			name: "inlet-commits-first", breaks: "an inlet commits what it has passed on, not what it has read",
			edits: []edit{{
				"services/collector/inlet.go", "		if err := in.pass(ctx, batch.Records); err != nil {\n			return ended(ctx, err)\n		}\n		if err := c.commit(ctx, batch.Next); err != nil {\n			return ended(ctx, err)\n		}\n",
				"		if err := c.commit(ctx, batch.Next); err != nil {\n			return ended(ctx, err)\n		}\n		if err := in.pass(ctx, batch.Records); err != nil {\n			return ended(ctx, err)\n		}\n",
			}},
			shapes: "inlet",
		},
		{
			name: "fence-without-the-inlets", breaks: "the fence counts what inlets have not passed on yet (edge 0)",
			edits:  []edit{{"services/activator/service.go", "{Inputs: inlets, Stage", "{Inputs: inlets[:0], Stage"}},
			shapes: "inlet",
		},
		{
			name: "fence-ignores-the-spools", breaks: "no timer fires while a door has acknowledged what is not in Kafka",
			edits:  []edit{{"pkg/keyed/spools.go", "		if len(open) > 0 {\n", "		if len(open) > 0 && len(told) > 0 {\n"}},
			shapes: "spool",
		},
		{
			name: "registered-behind-the-write", breaks: "the fence is told before the first acknowledgement from the disk",
			edits: []edit{{
				"pkg/spool/write.go", "		err := s.register(ctx)\n		if err == nil {\n			err = s.append(buf)\n		}\n		s.answer(items, err)\n",
				"		err := s.append(buf)\n		s.answer(items, err)\n		if err == nil {\n			_ = s.register(ctx)\n		}\n",
			}},
			shapes: "spool",
		},
		{
			name: "spool-acks-before-fsync", breaks: "a disk has synced what it is acknowledged for",
			edits: []edit{{
				"pkg/spool/write.go", "	if err == nil {\n		err = f.Sync()\n	}\n	s.mu.Lock()\n	defer s.mu.Unlock()\n	if err == nil {\n",
				"	if err == nil {\n		go func() { _ = f.Sync() }()\n	}\n	s.mu.Lock()\n	defer s.mu.Unlock()\n	if err == nil {\n",
			}},
			shapes: "spool",
		},
		{
			name: "drain-forgets", breaks: "what Kafka has not taken stays in the spool",
			edits:  []edit{{"pkg/spool/drain.go", "			if err != nil {\n				p.left[lane] = true\n", "			if err != nil && lane < 0 {\n				p.left[lane] = true\n"}},
			shapes: "spool",
		},
		{
			name: "spool-not-read-again", breaks: "a process counts what an earlier one has left",
			edits:  []edit{{"pkg/spool/recover.go", "error { return s.count(parts) })", "error { return nil })"}},
			shapes: "spool",
		},
		{
			name: "no-revision-check", breaks: "a script is accepted only if every state is as it was read",
			edits:  []edit{{"pkg/keyed/commit.lua", "if redis.call('GETRANGE', KEYS[5 + s], 1, 8) ~= ARGV[first + 4 * s - 3] then", "if false then"}},
			shapes: "merge,zombie",
		},
		{
			name: "no-applied-check", breaks: "a script is accepted only if the slot is where the worker read it",
			edits:  []edit{{"pkg/keyed/commit.lua", "expect ~= (meta[1] or 'none')", "expect == 'trim'"}},
			shapes: "zombie,lost,all",
		},
		{
			name: "resume-from-kafka", breaks: "a new owner goes on from the slot's applied offset, not from Kafka's commit",
			edits: []edit{{
				"pkg/keyed/recover.go", "w.s.opt.Input, w.claim.Partition, m.applied, stream.FetchOptions{})",
				"w.s.opt.Input, w.claim.Partition, max(0, w.claim.Offset), stream.FetchOptions{})",
			}},
			shapes: "crash,zombie",
		},
		{
			name: "fence-without-an-edge", breaks: "the fence walks every edge above the decider",
			edits: []edit{{
				"services/activator/service.go", "		{Inputs: []string{topics.EventsCollected()}, Stage: topic.StageStitcher, Slots: true},\n", "",
			}},
			shapes: "duel",
		},
		{
			name: "fence-without-outbox", breaks: "the fence waits for outboxes as well: a commit alone does not say that they are out",
			edits: []edit{
				{"services/activator/service.go", "Stage: topic.StageStitcher, Slots: true}", "Stage: topic.StageStitcher}"},
				{
					"pkg/keyed/worker.go", "	w.settle(n, next, now)\n	return w.effects(ctx, r)\n",
					"	w.settle(n, next, now)\n	if err := w.commit(ctx); err != nil {\n		return err\n	}\n	return w.effects(ctx, r)\n",
				},
			},
			shapes: "race,duel",
		},
		{
			name: "ticket-of-this-walk", breaks: "a timer waits for a walk that begins after it was seen due",
			edits:  []edit{{"pkg/keyed/fence.go", "	return f.begun + 1\n", "	return max(f.begun, 1)\n"}},
			shapes: "race",
		},
		{
			name: "timer-without-fence", breaks: "a timer waits for the fence at all",
			edits:  []edit{{"pkg/keyed/timers.go", "		if c.walk > done {\n			break", "		if c.walk > done && c.walk < 0 {\n			break"}},
			shapes: "duel,race",
		},
		{
			name: "no-position-filter", breaks: "a record published twice counts once",
			edits:  []edit{{"pkg/keyed/intake.go", "if ok && p.Seq <= last {", "if ok && p.Seq <= last && p.Seq < 0 {"}},
			shapes: "crash,zombie",
		},
		{
			// Either alone changes nothing: a move that comes twice takes the same hops twice, and meets the note
			// at the hop that took it or, if that passes all on, in the state that has travelled.
			name: "notes-end-with-the-freeze", breaks: "a frozen key drops what its notes cover, and notes travel with the state",
			edits: []edit{
				{
					"pkg/keyed/move.go", "h.notes, h.blocked = united(h.notes, origin.notes), united(h.blocked, origin.blocked)",
					"h.blocked = united(h.blocked, origin.blocked)",
				},
				{
					"pkg/keyed/move.go", "if n, ok := h.notes[origin.key]; ok && n >= seq {\n			return nil", "if n, ok := h.notes[origin.key]; ok && n >= seq && !h.frozen {\n			return nil",
				},
			},
			shapes: "chain,merge",
		},
		{
			name: "move-not-noted", breaks: "a move that comes home twice counts once",
			edits: []edit{{
				"pkg/keyed/move.go", "		h.notes = with(h.notes, origin.key, seq)\n		h.unblock()\n		outs", "		h.unblock()\n		outs",
			}},
			shapes: "merge",
		},
		{
			name: "trim-too-far", breaks: "only what is published leaves the outbox",
			edits: []edit{{
				"pkg/keyed/publish.go", "w.pub = r.firstSeq + int64(len(w.dec.outputs))", "w.pub = r.firstSeq + int64(len(w.dec.outputs)) + 1",
			}},
			shapes: "crash,zombie",
		},
		{
			name: "publish-past-a-failed-request", breaks: "nothing is published behind a request that failed",
			edits:  []edit{{"pkg/keyed/publish.go", "	wg.Wait()\n	return errors.Join(errs...)\n", "	wg.Wait()\n	_ = errors.Join(errs...)\n	return nil\n"}},
			shapes: "owners,all,zombie",
		},
		{
			name: "lost-answer-taken-for-done", breaks: "a produce request without an answer is sent again",
			edits: []edit{{
				"pkg/stream/produce.go", "		err := c.produceOnce(ctx, l, e)\n		switch {\n",
				"		err := c.produceOnce(ctx, l, e)\n		switch {\n		case kafkaCode(err) == 0:\n			return nil\n",
			}},
			shapes: "lost",
		},
		{
			name: "fetch-skips-a-record", breaks: "what is read is read without gaps",
			edits: []edit{{
				"pkg/stream/fetch.go", "	f.c.wire.fetched.Add(float64(len(recs)))\n",
				"	f.c.wire.fetched.Add(float64(len(recs)))\n	if len(recs) > 2 {\n		recs = recs[1:]\n	}\n",
			}},
			shapes: "crash",
		},
		{
			name: "seen-ids-apart", breaks: "message ids are remembered in the script that moves the offset",
			edits: []edit{
				{"pkg/keyed/worker.go", "		seenIDs: d.seenIDs, seenAt: d.seenAt, seenFor: d.seenWindow,\n", ""},
				{
					"pkg/keyed/worker.go", "	w.settle(n, next, now)\n	return w.effects(ctx, r)\n",
					"	w.settle(n, next, now)\n	if d := &w.dec; len(d.seenIDs) > 0 {\n		if _, err := w.slot.commit(ctx, commitArgs{seenIDs: d.seenIDs, seenAt: d.seenAt, seenFor: d.seenWindow}); err != nil {\n			return err\n		}\n	}\n	return w.effects(ctx, r)\n",
				},
			},
			shapes: "crash,lost",
		},
		{
			name: "loss-not-seen", breaks: "a stage whose slot went back stops",
			edits: []edit{
				{"pkg/keyed/recover.go", "if m.applied < w.claim.Offset || m.applied < w.highest {", "if m.applied < 0 {"},
				{"pkg/keyed/recover.go", "case m.fresh || m.applied < w.m.applied:", "case m.fresh:"},
				{"pkg/keyed/recover.go", "m.writes < told || m.writes < w.writes {", "m.writes < 0 && told < 0 {"},
				{"pkg/keyed/recover.go", "case m.writes < w.writes:", "case m.writes < 0:"},
			},
			shapes: "regress,cluster",
		},
		{
			name: "witness-not-compared", breaks: "a stage stops when nodes of the identity graph went back, and nothing that a slot counts",
			edits: []edit{
				{"pkg/identity/witness.go", "	if n < least {\n", "	if n < least && n < 0 {\n"},
				{"pkg/identity/witness.go", "		if t.writes < known[b] {\n", "		if t.writes < known[b] && t.writes < 0 {\n"},
			},
			shapes: "cluster",
		},
		{
			name: "link-published-by-its-maker-only", breaks: "whoever crosses a link that is not confirmed publishes its merge",
			edits: []edit{{
				"pkg/identity/union.go", "if !slices.Contains(s.crossed, id) {", "if v.cause.MessageID == s.cause.MessageID && !slices.Contains(s.crossed, id) {",
			}},
			shapes: "race,merge",
		},
		{
			name: "attempt-not-marked", breaks: "an attempt to deliver is marked before it is made",
			edits:  []edit{{"services/activator/deliver.go", "	ok, err := d.store.SetNX(ctx, mark, token, markTTL)\n", "	ok, err := true, error(nil)\n"}},
			shapes: "crash",
		},
		{
			name: "insert-without-token", breaks: "a range is inserted under one token, whoever inserts it",
			edits: []edit{{
				"services/journey-writer/partition.go", "fmt.Sprintf(\"%s:%d:%d-%d\", o.topic, o.partition, ann.Start, ann.End)",
				"fmt.Sprintf(\"%s:%d:%d-%d %d\", o.topic, o.partition, ann.Start, ann.End, o.now().UnixNano())",
			}},
			shapes: "rows",
		},
		{
			name: "announcement-not-read", breaks: "a new owner inserts the range that was announced",
			edits: []edit{{
				"services/journey-writer/partition.go", "	if err := o.takeOver(ctx, &ann); err != nil {", "	ann.End = ann.Start\n	if err := o.takeOver(ctx, &ann); err != nil {",
			}},
			shapes: "rows",
		},
		{
			name: "commit-taken-for-done", breaks: "a commit whose outcome is unknown is never believed",
			edits: []edit{{
				"services/journey-writer/partition.go", "		o.metrics.commit(\"unknown\")\n		return fmt.Errorf(\"%w: %w\", stream.ErrRejoin, err)\n",
				"		o.metrics.commit(\"unknown\")\n",
			}},
			shapes: "rows",
		},
	}...)
}

// apply is a file's text with the edits of it.
func (m *mutation) apply(text []byte, file string) (string, []string) {
	out, lost := string(text), []string(nil)
	for _, e := range m.edits {
		if e.file != file {
			continue
		}
		if n := strings.Count(out, e.old); n != 1 {
			lost = append(lost, e.old)
		}
		out = strings.Replace(out, e.old, e.new, 1)
	}
	return out, lost
}

// files are the files that a mutation changes.
func (m *mutation) files() []string {
	var fs []string
	for _, e := range m.edits {
		if len(fs) == 0 || fs[len(fs)-1] != e.file {
			fs = append(fs, e.file)
		}
	}
	return fs
}

// TestMutationsApply: every place that a mutation changes is there, once.
func TestMutationsApply(t *testing.T) {
	for _, m := range mutations() {
		for _, file := range m.files() {
			text, err := os.ReadFile(filepath.Join(root, file))
			require.NoError(t, err)
			_, lost := m.apply(text, file)
			require.Empty(t, lost, "mutation %s: not once in %s", m.name, file)
		}
	}
}
