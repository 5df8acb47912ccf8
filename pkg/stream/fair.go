package stream

const (
	// hotShare is how much of a full request the records of one key may take while others wait: a sender of thousands
	// of events a second then doubles the wait of those beside it at most.
	hotShare = maxProduceBytes / 2
	// fairWindow is how far others are looked for behind it. More is queued only while Kafka does not keep up, and
	// looking through all of it for each request would hold the lane for longer than the request takes.
	fairWindow = 4 * maxProduceBytes
)

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
	clear(l.queue[:len(l.queue)-len(rest)]) // the rest stands at its end; what goes must not be kept in memory
	l.queue = rest
	f.waiting = len(batch)
	return batch, f, l.closed && len(l.queue) == 0
}

// first parts the queue where a request is full. The rest is the end of the queue.
func (l *batchLane) first() (batch, rest []*pending) {
	size := 0
	for i, p := range l.queue {
		if p.done {
			continue
		}
		if size += p.size + maxDeltaSize; size > maxProduceBytes && len(batch) > 0 {
			return batch, l.queue[i:]
		}
		batch = append(batch, p)
	}
	return batch, nil
}

// fair parts the queue so that no key has more than its share, and says of how many keys that held something back.
// What is behind a full request or the window stays behind, unlooked at. The rest is the end of the queue then.
func (l *batchLane) fair() (batch, rest []*pending, held int) {
	size, looked, keys := 0, 0, map[string]int{}
	end := len(l.queue)
	for i, p := range l.queue {
		if p.done {
			continue
		}
		n := p.size + maxDeltaSize
		if looked += n; looked > fairWindow {
			end = i
			break
		}
		own := keys[string(p.rec.Key)]
		switch {
		case own < 0:
			rest = append(rest, p)
			continue
		case own > 0 && own+n > hotShare && p.rec.Key != nil:
			keys[string(p.rec.Key)] = -1 // what comes later of it stays behind it
			rest = append(rest, p)
			held++
			continue
		}
		if len(batch) > 0 && size+n > maxProduceBytes {
			end = i
			break
		}
		keys[string(p.rec.Key)] = own + n
		size += n
		batch = append(batch, p)
	}
	if len(keys) < 2 {
		return nil, nil, 0 // nobody else waits
	}
	if looked > fairWindow { // so much waits that room is not left empty for those who may come
		for len(rest) > 0 && size+rest[0].size+maxDeltaSize <= maxProduceBytes {
			size += rest[0].size + maxDeltaSize
			batch, rest = append(batch, rest[0]), rest[1:]
		}
	}
	at := end - len(rest)
	copy(l.queue[at:], rest) // in the place of what goes
	return batch, l.queue[at:], held
}
