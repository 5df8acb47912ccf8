package identity

import "sync"

// cache remembers the roots of nodes, bounded by count: two generations, the older dropped when the younger
// is full. Looking an entry up does not prolong its life, so a hot identifier is read again from time to
// time. Entries may be stale (a root that meanwhile was linked elsewhere): readers of profile ids follow
// merges. An entry is only made from a way whose links were all confirmed. Safe for concurrent use.
type cache struct {
	mu       sync.Mutex
	epoch    uint64 // of the graph, in which the entries were true: see Resolver.raise
	perGen   int    // entries per generation; 0: no cache
	young    map[Node]Node
	old      map[Node]Node
	rotation int // how often a generation was dropped
}

// newCache keeps about entries entries.
func newCache(entries int) *cache {
	return &cache{perGen: entries / 2, young: make(map[Node]Node), old: make(map[Node]Node)}
}

// now is the epoch of the cache.
func (c *cache) now() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch
}

// begin forgets all that is of an older epoch.
func (c *cache) begin(epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch > c.epoch {
		c.epoch, c.young, c.old = epoch, make(map[Node]Node), nil
	}
}

// root returns the one root of all ids in an epoch, if the cache knows it.
func (c *cache) root(ids []Identifier, epoch uint64) (Node, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch != epoch {
		return Node{}, false
	}
	var root Node
	for i, id := range ids {
		r, ok := c.young[id.Node]
		if !ok {
			r, ok = c.old[id.Node]
		}
		if !ok || i > 0 && r != root {
			return Node{}, false
		}
		root = r
	}
	return root, len(ids) > 0
}

// put notes the root of all ids, as read by a batch that began in an epoch.
func (c *cache) put(ids []Identifier, root Node, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch != epoch { // read before a split, perhaps
		return
	}
	for _, id := range ids {
		if c.perGen == 0 {
			return
		}
		if len(c.young) >= c.perGen {
			c.old, c.young = c.young, make(map[Node]Node, c.perGen)
			c.rotation++
		}
		c.young[id.Node] = root
	}
}

// drop forgets nodes: their root has just been linked elsewhere by this process.
func (c *cache) drop(v *value) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range v.size() {
		delete(c.young, v.member(i))
		delete(c.old, v.member(i))
	}
}

// forget forgets a node that must be looked at each time.
func (c *cache) forget(n Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.young, n)
	delete(c.old, n)
}

// size is the number of entries held, at most.
func (c *cache) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.young) + len(c.old)
}
