package stream

import (
	"cmp"
	"maps"
	"slices"
)

// place is one partition of one topic.
type place struct {
	topic     string
	partition int
}

func (a place) compare(b place) int {
	return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
}

// candidate is a member of the group as its leader sees it in a join.
type candidate struct {
	id         string   // member id
	instance   string   // static membership; empty: none
	topics     []string // what it reads
	owned      []place  // what it has and keeps until it is told to give it up
	generation int32    // of its claims to owned
}

// key orders candidates: a restart must not change the order of static members.
func (m *candidate) key() string {
	if m.instance != "" {
		return m.instance
	}
	return m.id
}

// share is what one member is told: the partitions that are its own now, and those that it must give up
// because they are to go elsewhere. Owed ones are nobody's until it has joined again without them.
type share struct {
	assigned, owed []place
}

// assign shares out the partitions of each topic (counts: topic to number). It is pure and deterministic.
//
//   - Each partition that a member may read is assigned to exactly one member, or owed by exactly the
//     members that claim it; never both.
//   - What a member claims it keeps, unless another claims it at a newer generation, or keeping it would
//     leave the members with numbers that differ by more than one; then as few as possible move. Two claims
//     of the same generation cannot be (each generation assigns a partition once): neither is believed.
//   - A partition that moves is first owed: its new owner gets it in the next generation.
//
// Members that read different topics are balanced as far as moving single partitions goes.
func assign(members []candidate, counts map[string]int) map[string]share {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.key(), b.key()), cmp.Compare(a.id, b.id))
	})
	b := balance{members: members, has: make([][]place, len(members)), reads: make([]map[string]bool, len(members))}
	for i, m := range members {
		b.reads[i] = make(map[string]bool, len(m.topics))
		for _, t := range m.topics {
			b.reads[i][t] = true
		}
	}
	holders, claimants := b.claims(counts)
	for _, p := range partitionsOf(counts) {
		if i, ok := holders[p]; ok {
			b.has[i] = append(b.has[i], p)
		}
	}
	for _, p := range partitionsOf(counts) {
		if _, held := holders[p]; !held {
			if i := b.least(p.topic); i >= 0 {
				b.has[i] = append(b.has[i], p)
			}
		}
	}
	for b.move() {
	}
	return b.shares(holders, claimants)
}

func partitionsOf(counts map[string]int) []place {
	var all []place
	for _, t := range slices.Sorted(maps.Keys(counts)) {
		for p := range counts[t] {
			all = append(all, place{t, p})
		}
	}
	return all
}

// balance is an assignment in the making. Indexes are those of members.
type balance struct {
	members []candidate
	reads   []map[string]bool
	has     [][]place
}

// claims finds who holds each partition, and who claims it, believed or not.
func (b *balance) claims(counts map[string]int) (holders map[place]int, claimants map[place][]int) {
	holders, claimants = map[place]int{}, map[place][]int{}
	for i, m := range b.members {
		for _, p := range m.owned {
			if p.partition < 0 || p.partition >= counts[p.topic] || slices.Contains(claimants[p], i) {
				continue
			}
			claimants[p] = append(claimants[p], i)
		}
	}
	for p, by := range claimants {
		newest, double := by[0], false
		for _, i := range by[1:] {
			switch c := cmp.Compare(b.members[i].generation, b.members[newest].generation); {
			case c > 0:
				newest, double = i, false
			case c == 0:
				double = true
			}
		}
		if !double && b.reads[newest][p.topic] {
			holders[p] = newest
		}
	}
	return holders, claimants
}

// least is the member with the fewest partitions that reads a topic; -1: none does.
func (b *balance) least(topicName string) int {
	best := -1
	for i := range b.members {
		if b.reads[i][topicName] && (best < 0 || len(b.has[i]) < len(b.has[best])) {
			best = i
		}
	}
	return best
}

// move takes one partition from a member that has at least two more than another that may have it; false:
// there is none. It takes from the one with the most, and of its partitions the last, so that equal input
// gives equal output.
func (b *balance) move() bool {
	order := make([]int, len(b.members))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(x, y int) int { return cmp.Compare(len(b.has[y]), len(b.has[x])) })
	for _, from := range order {
		for at := len(b.has[from]) - 1; at >= 0; at-- {
			p := b.has[from][at]
			if to := b.least(p.topic); to >= 0 && len(b.has[from]) >= len(b.has[to])+2 {
				b.has[from] = slices.Delete(b.has[from], at, at+1)
				b.has[to] = append(b.has[to], p)
				return true
			}
		}
	}
	return false
}

// shares tells each member what is its own, and what it owes. Of a partition that its holder keeps, older
// claims are void: nothing waits for those who make them.
func (b *balance) shares(holders map[place]int, claimants map[place][]int) map[string]share {
	shares := make([]share, len(b.members))
	free := map[place]bool{}
	for i := range b.members {
		for _, p := range b.has[i] {
			h, held := holders[p]
			by := claimants[p]
			if held && h == i || len(by) == 0 || len(by) == 1 && by[0] == i {
				shares[i].assigned = append(shares[i].assigned, p)
				free[p] = true
			}
		}
	}
	for p, by := range claimants {
		if free[p] {
			continue
		}
		for _, i := range by {
			shares[i].owed = append(shares[i].owed, p)
		}
	}
	out := make(map[string]share, len(shares))
	for i, m := range b.members {
		slices.SortFunc(shares[i].assigned, place.compare)
		slices.SortFunc(shares[i].owed, place.compare)
		out[m.id] = shares[i]
	}
	return out
}
