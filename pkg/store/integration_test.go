//go:build integration

package store_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/embedded"
	"github.com/weft-cdp/weft/pkg/store"
)

const (
	patience = 2 * time.Minute // for what takes two seconds on a free machine
	retry    = 50 * time.Millisecond
)

func TestConformRedis(t *testing.T) {
	addr := os.Getenv("WEFT_TEST_REDIS")
	require.NotEmpty(t, addr, "WEFT_TEST_REDIS: 'make test' sets it")
	c := open(t, config.Redis{Addresses: strings.Split(addr, ",")})
	require.NoError(t, c.Check(context.Background()), "the tests' redis is durable")
	conform(t, c, fmt.Sprintf("t%d:", time.Now().UnixNano()))
}

func cluster(t *testing.T) *embedded.RedisCluster {
	t.Helper()
	nodes, err := embedded.StartRedisCluster(t.Context(), t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, nodes.Close()) })
	return nodes
}

func TestConformRedisCluster(t *testing.T) {
	nodes := cluster(t)
	c := open(t, config.Redis{Addresses: nodes.Addresses()})
	require.NoError(t, c.Check(t.Context()), "every master is asked, and is durable")
	conform(t, c, "t:")

	t.Run("a slot that moves", func(t *testing.T) { slotMoves(t, nodes, c) })
	t.Run("a node that is gone and comes back", func(t *testing.T) { nodeReturns(t, nodes, c) })
	t.Run("no memory", func(t *testing.T) { noMemory(t, nodes, c) })
	t.Run("one address is enough", func(t *testing.T) {
		one := open(t, config.Redis{Addresses: append(nodes.Addresses()[:1], nodes.Addresses()[0])})
		conform(t, one, "again:")
	})
}

// slotMoves moves a slot from one node to another, key by key, while a script works on it: ASK for keys that went
// already, MOVED afterwards.
func slotMoves(t *testing.T, nodes *embedded.RedisCluster, c *store.Client) {
	ctx := t.Context()
	say := func(node int, words ...string) string {
		answer, err := nodes.Say(ctx, node, words...)
		require.NoError(t, err, words)
		return answer
	}
	const tag = "{moving}"
	slot := say(0, "CLUSTER", "KEYSLOT", tag)
	n, err := strconv.Atoi(slot)
	require.NoError(t, err)
	from := n * 3 / 16384
	to := (from + 1) % 3
	ids := [2]string{say(from, "CLUSTER", "MYID"), say(to, "CLUSTER", "MYID")}
	keys := []string{tag + "state", tag + "outbox", tag + "timers"}
	written := 0
	write := func() {
		rev := ""
		if written > 0 {
			rev = fmt.Sprintf("%02d", written)
		}
		written++
		require.Eventually(t, func() bool {
			r, err := guarded.Run(ctx, c, keys, rev, fmt.Sprintf("\x01%02d", written), "entry", 7)
			if err != nil {
				require.Equal(t, store.ClassCluster, store.Class(err), err) // between two nodes: TRYAGAIN, and it passes
				return false
			}
			status, _ := r.Slice()[0].Text()
			return status == "ok"
		}, patience, retry)
	}
	write()
	say(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
	say(from, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
	host, port, _ := strings.Cut(nodes.Addresses()[to], ":")
	// One of the script's keys is there, the others here: a script is refused and says that it will pass.
	say(from, "MIGRATE", host, port, keys[0], "0", "5000")
	_, err = guarded.Run(ctx, c, keys, "01", "\x0102", "entry", 7)
	require.Equal(t, store.ClassCluster, store.Class(err), "%v", err)
	require.ErrorIs(t, err, store.ErrCluster)
	got, err := c.MGet(ctx, keys[0])
	require.NoError(t, err, "one key alone is found where it went")
	require.Equal(t, "\x0101", string(got[0]))
	for _, k := range keys[1:] {
		say(from, "MIGRATE", host, port, k, "0", "5000")
	}
	write() // the slot is still announced at its old node, which asks to ask the other
	for _, node := range []int{to, from, 3 - from - to} {
		say(node, "CLUSTER", "SETSLOT", slot, "NODE", ids[1])
	}
	write()
	got, err = c.MGet(ctx, keys[0])
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("\x01%02d", written), string(got[0]), "every write once")
	require.NoError(t, nodes.Settled(ctx))
}

// nodeReturns kills a node: what lies there is away, with a class that says so, and the rest goes on; what it had
// acknowledged is there when it is back.
func nodeReturns(t *testing.T, nodes *embedded.RedisCluster, c *store.Client) {
	ctx := t.Context()
	var keys []string
	for i := range 32 {
		keys = append(keys, fmt.Sprintf("{back%d}", i))
		ok, _, err := cas(ctx, c, keys[i], keys[i]+"n", "", keys[i])
		require.NoError(t, err)
		require.True(t, ok)
	}
	const victim = 1
	require.NoError(t, nodes.Kill(victim))
	gone, there := 0, 0
	for _, k := range keys {
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := c.Get(short, k)
		cancel()
		switch class := store.Class(err); class {
		case "":
			there++
		case store.ClassUnreachable, store.ClassCluster, store.ClassCanceled:
			gone++
		default:
			t.Fatalf("%s: %v", class, err)
		}
	}
	require.NotZero(t, gone, "a third of the slots")
	require.NotZero(t, there, "the others are served")
	require.Error(t, c.Ping(ctx), "every master is asked")
	require.NoError(t, nodes.Start(ctx, victim))
	require.NoError(t, nodes.Settled(ctx))
	require.Eventually(t, func() bool { return c.Ping(ctx) == nil }, patience, retry)
	got, err := c.MGet(ctx, keys...)
	require.NoError(t, err)
	for i, k := range keys {
		require.Equal(t, k, string(got[i]))
	}
	ok, n, err := cas(ctx, c, keys[0], keys[0]+"n", keys[0], "next")
	require.NoError(t, err, "its scripts are gone, which nobody sees")
	require.True(t, ok)
	require.Equal(t, "2", n)
}

// noMemory: at the limit writes are refused with a class, reads and what frees memory go on, and it passes.
func noMemory(t *testing.T, nodes *embedded.RedisCluster, c *store.Client) {
	ctx := t.Context()
	limit := func(bytes string) {
		for node := range nodes.Addresses() {
			_, err := nodes.Say(ctx, node, "CONFIG", "SET", "maxmemory", bytes)
			require.NoError(t, err)
		}
	}
	keys := []string{"{full}state", "{full}outbox", "{full}timers"}
	_, err := guarded.Run(ctx, c, keys, "", "\x01aa", "entry", 7)
	require.NoError(t, err)
	limit("1mb")
	for name, call := range map[string]func() error{
		"set":    func() error { return c.Set(ctx, "{full}a", []byte("1"), 0) },
		"cas":    func() error { _, _, err := cas(ctx, c, "{full}b", "{full}n", "", "1"); return err },
		"script": func() error { _, err := guarded.Run(ctx, c, keys, "aa", "\x01bb", "entry", 7); return err },
		"pipe": func() error {
			p := c.Pipe()
			p.Do(ctx, "GET", keys[0])
			p.Do(ctx, "RPUSH", keys[1], "x")
			return p.Exec(ctx)
		},
	} {
		require.ErrorIs(t, call(), store.ErrMemory, name)
	}
	b, err := c.Get(ctx, keys[0])
	require.NoError(t, err)
	require.Equal(t, "\x01aa", string(b), "refused scripts wrote nothing")
	b, err = c.Get(ctx, "{full}n")
	require.NoError(t, err)
	require.Nil(t, b, "and counted nothing")
	p := c.Pipe()
	p.Do(ctx, "LTRIM", keys[1], 1, -1)
	require.NoError(t, p.Exec(ctx), "what frees memory is let through")
	limit("0")
	_, err = guarded.Run(ctx, c, keys, "aa", "\x01bb", "entry", 7)
	require.NoError(t, err)
}
