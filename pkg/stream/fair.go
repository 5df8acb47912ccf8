package stream

// hotShare is how much of a full request the records of one key may take while others wait: a sender of thousands of
// events a second then doubles the wait of those beside it at most, however much of it is queued.
const hotShare = maxProduceBytes / 2

// take returns what goes into the next request; last means that nothing will come any more. Where more waits than fits,
// one key takes hotShare of it at most and the rest of that key stays behind, in its order.
func (b *Batcher) take(l *batchLane) (batch []*pending, f *flight, last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f = &flight{}
	batch, rest := l.first()
	if len(rest) > 0 {
		if fair, behind, held := l.fair(); held > 0 {
			batch, rest = fair, behind
			b.c.wire.deferred.Add(float64(held))
		}
	}
	for _, p := range batch {
		p.flight = f
	}
	l.queue = rest
	f.waiting = len(batch)
	return batch, f, l.closed && len(l.queue) == 0
}

// first parts the queue where a request is full.
func (l *batchLane) first() (batch, rest []*pending) {
	size := 0
	for i, p := range l.queue {
		if p.done {
			continue
		}
		if size += p.size + maxDeltaSize; size > maxProduceBytes && len(batch) > 0 {
			return batch, append([]*pending(nil), l.queue[i:]...)
		}
		batch = append(batch, p)
	}
	return batch, nil
}

// fair parts the queue so that no key has more than its share, and says how many records that held back.
func (l *batchLane) fair() (batch, rest []*pending, held int) {
	size, keys := 0, map[string]int{}
	full := false
	for _, p := range l.queue {
		if p.done {
			continue
		}
		n := p.size + maxDeltaSize
		own := keys[string(p.rec.Key)]
		switch {
		case full || own < 0:
			rest = append(rest, p)
		case own > 0 && own+n > hotShare && p.rec.Key != nil:
			keys[string(p.rec.Key)] = -1 // what comes later of it stays behind it
			rest = append(rest, p)
			held++
		case len(batch) > 0 && size+n > maxProduceBytes:
			full = true
			rest = append(rest, p)
		default:
			keys[string(p.rec.Key)] = own + n
			size += n
			batch = append(batch, p)
		}
	}
	if len(keys) < 2 {
		return nil, nil, 0 // nobody else waits
	}
	return batch, rest, held
}
