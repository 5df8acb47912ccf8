package identity

import "fmt"

// State takes in what was published of a device; of several, the last. Its slices of time are forgotten. What a command has
// said is not looked at.
func (r *Restore) State(s *NodeState) error {
	if s.Command != "" {
		return nil
	}
	n, err := ParseNode(s.Node)
	if err != nil {
		return fmt.Errorf("restore state: %w", err)
	}
	if r.states == nil {
		r.states = map[Node]*sharedDevice{}
	}
	if r.states[n] = s.restored(); r.states[n] == nil {
		delete(r.states, n)
	}
	return nil
}

// applyStates writes the states of devices into their entries, which links have made; a device without one gets one.
func (r *Restore) applyStates() error {
	var touched [buckets]map[Node]*sharedDevice
	for n, d := range r.states {
		m := &touched[bucketOf(n)]
		if *m == nil {
			*m = map[Node]*sharedDevice{}
		}
		(*m)[n] = d
	}
	for b, states := range touched {
		if len(states) == 0 {
			continue
		}
		old := r.entries[b]
		r.entries[b] = make([]byte, 0, len(old))
		for len(old) > 0 {
			node, raw, rest, err := nextEntry(old)
			if err != nil {
				return err
			}
			n := Node(append(append(make([]byte, 0, nodeBytes), node...), byte(b))) //nolint:gosec // below buckets
			if d := states[n]; d != nil {
				delete(states, n)
				v, err := decode(n, raw)
				if err != nil {
					return err
				}
				v.shared = d
				if err := r.write(n, v); err != nil {
					return err
				}
			} else {
				r.entries[b] = append(r.entries[b], old[:len(old)-len(rest)]...)
			}
			old = rest
		}
		for n, d := range states {
			v := absent(n)
			v.shared = d
			if err := r.write(n, v); err != nil {
				return err
			}
		}
	}
	return nil
}
