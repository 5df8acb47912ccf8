package identity

import "fmt"

// override is what is said of a node beside links.
type override struct {
	device     *sharedDevice
	blocked    bool
	parted     *value // the link that a split made takes the place of whatever links say
	generation uint64
	cuts       []cut
}

// of is what is said of a node, to be added to.
func (r *Restore) of(n Node) *override {
	o := r.over[n]
	if o == nil {
		o = &override{}
		r.over[n] = o
	}
	return o
}

// State takes in what was published of a node: of a device, or by a command. Of several, the last; a device's slices of time
// are forgotten.
func (r *Restore) State(s *NodeState) error {
	n, err := ParseNode(s.Node)
	if err != nil {
		return fmt.Errorf("restore state: %w", err)
	}
	if s.Command == "" {
		r.of(n).device = s.restored()
		return nil
	}
	r.of(n).blocked = s.Blocked
	r.rise(n, s.Generation)
	cuts, err := parseCuts(s.Cuts)
	if err != nil {
		return fmt.Errorf("restore state of %s: %w", s.Node, err)
	}
	r.undone.said(n, cuts)
	return nil
}

// apply writes what is said of a node into its value.
func (o *override) apply(v *value) {
	if o.parted != nil {
		*v = *o.parted
	}
	v.shared, v.blocked = o.device, o.blocked
	if o.generation > 0 && !v.parted {
		v.incarnation = o.generation
	}
	if !v.linked {
		v.cuts = o.cuts
	}
}

// override writes what is said of nodes into their entries, which links have made; a node without one gets one.
func (r *Restore) override() error {
	var touched [buckets]map[Node]*override
	for n, o := range r.over {
		m := &touched[bucketOf(n)]
		if *m == nil {
			*m = map[Node]*override{}
		}
		(*m)[n] = o
	}
	for b, over := range touched {
		if len(over) == 0 {
			continue
		}
		old := r.entries[b]
		r.entries[b] = make([]byte, 0, len(old))
		for len(old) > 0 {
			node, raw, rest, err := nextEntry(old)
			if err != nil {
				return err
			}
			n := Node(append(append(make([]byte, 0, nodeBytes), node...), byte(b)))
			if o := over[n]; o != nil {
				delete(over, n)
				v, err := decode(n, raw)
				if err != nil {
					return err
				}
				o.apply(v)
				if err := r.write(n, v); err != nil {
					return err
				}
			} else {
				r.entries[b] = append(r.entries[b], old[:len(old)-len(rest)]...)
			}
			old = rest
		}
		for n, o := range over {
			v := absent(n)
			if o.apply(v); v.plain() {
				continue
			}
			if err := r.write(n, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// plain says whether a value says nothing.
func (v *value) plain() bool {
	return !v.linked && v.size() == 1 && v.shared == nil && !v.blocked && v.incarnation == 0 && len(v.cuts) == 0
}
