package event

// maxListed bounds each list of a listing: members of the first few hundred usual events. The items behind them are scanned
// on their own when they are read.
const maxListed = 4096

// listing is what the scan of a batch finds of its items, so that a Reader needs no scan of its own for each of them.
// Positions are those in the batch.
type listing struct {
	members, properties, context []member // of all items, one after another
	all                          []listed
	full                         bool // one of the lists is, and the last item is not all listed

	below func(key []byte, from int) *[]member // l.inside
}

// listed is one item: where it begins, and where its members stand in the lists.
type listed struct {
	ok                           bool
	from                         int
	members, properties, context span
	propertiesAt, contextAt      int // where the first objects of these names begin; 0: there are none
	found                        shape
}

func (l *listing) reset() {
	if l.below == nil {
		l.below = l.inside
	}
	l.members, l.properties, l.context, l.all, l.full = l.members[:0], l.properties[:0], l.context[:0], l.all[:0], false
}

func (l *listing) begin(from int) {
	l.all = append(l.all, listed{
		from: from, members: span{from: len(l.members)}, properties: span{from: len(l.properties)}, context: span{from: len(l.context)},
	})
}

func (l *listing) end(found shape) {
	x := &l.all[len(l.all)-1]
	x.ok, x.found = !l.full, found
	x.members.to, x.properties.to, x.context.to = len(l.members), len(l.properties), len(l.context)
}

// inside has the scanner list the members of properties and context of the item at hand.
func (l *listing) inside(key []byte, from int) *[]member {
	x := &l.all[len(l.all)-1]
	switch {
	case x.propertiesAt == 0 && string(key) == "properties":
		x.propertiesAt = from
		return &l.properties
	case x.contextAt == 0 && string(key) == "context":
		x.contextAt = from
		return &l.context
	}
	return nil
}

// take puts the members of item i, of which the text is item, where r has those of a body that it has scanned. false: they
// are not listed.
func (l *listing) take(r *Reader, i int, item []byte) bool {
	if i >= len(l.all) || !l.all[i].ok {
		return false
	}
	x := &l.all[i]
	r.scan.b, r.found = item, x.found
	r.list = moved(r.list[:0], l.members[x.members.from:x.members.to], x.from)
	r.fields = fields{}
	r.fields.read(item, r.list)
	r.properties.take(item, x.propertiesAt-x.from, l.properties[x.properties.from:x.properties.to], x.from)
	r.context.take(item, x.contextAt-x.from, l.context[x.context.from:x.context.to], x.from)
	return true
}

// take is what the scanner has listed of the object at b[at:], if that is in b; by is added to all positions of list.
func (o *Object) take(b []byte, at int, list []member, by int) {
	if o.b, o.escaped, o.list = nil, o.escaped[:0], o.list[:0]; at > 0 {
		o.b, o.from, o.list = b, at, moved(o.list, list, by)
	}
}

// moved appends list to dst with by taken off all positions.
func moved(dst, list []member, by int) []member {
	for _, m := range list {
		m.keyFrom, m.keyTo, m.from, m.to = m.keyFrom-by, m.keyTo-by, m.from-by, m.to-by
		dst = append(dst, m)
	}
	return dst
}
