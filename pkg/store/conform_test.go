package store_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/store"
)

// conform is what Weft relies on in any Redis: miniredis in memory, a real one, a Redis Cluster. The keys are
// under prefix, in hash slots of their own where they must be written together.
func conform(t *testing.T, c *store.Client, prefix string) {
	for name, check := range map[string]func(*testing.T, *store.Client, string){
		"values": conformValues, "run each": conformRunEach, "pipeline": conformPipeline,
		"script": conformScript, "over many slots": conformSlots,
	} {
		t.Run(name, func(t *testing.T) { check(t, c, prefix+strings.ReplaceAll(name, " ", "-")+":") })
	}
}

func conformValues(t *testing.T, c *store.Client, prefix string) {
	ctx := t.Context()
	k := func(s string) string { return prefix + s }
	require.NoError(t, c.Ping(ctx))
	b, err := c.Get(ctx, k("none"))
	require.NoError(t, err)
	require.Nil(t, b)
	require.NoError(t, c.Set(ctx, k("a"), []byte("1\x00\xff"), 0))
	got, err := c.MGet(ctx, k("a"), k("none"), k("a"))
	require.NoError(t, err)
	require.Equal(t, [][]byte{[]byte("1\x00\xff"), nil, []byte("1\x00\xff")}, got)
	require.NoError(t, c.Set(ctx, k("empty"), nil, 0))

	ok, err := c.SetNX(ctx, k("nx"), []byte("1"), time.Hour)
	require.NoError(t, err)
	require.True(t, ok)
	ok, err = c.SetNX(ctx, k("nx"), []byte("2"), time.Hour)
	require.NoError(t, err)
	require.False(t, ok)

	v, err := c.Fact(ctx, k("facts"), "partitions", "12")
	require.NoError(t, err)
	require.Equal(t, "12", v)
	v, err = c.Fact(ctx, k("facts"), "partitions", "24")
	require.NoError(t, err)
	require.Equal(t, "12", v, "what was written first stands")
}

// casScript sets a key that holds what it is said to hold, and counts that.
const casScript = `
local cur = redis.call('GET', KEYS[1]) or ''
if cur ~= ARGV[2] then
  if cur ~= ARGV[1] then return {'0', redis.call('GET', KEYS[2]) or '0'} end
  redis.call('INCR', KEYS[2])
  redis.call('SET', KEYS[1], ARGV[2])
end
return {'1', redis.call('GET', KEYS[2])}`

// cas runs casScript alone.
func cas(ctx context.Context, c *store.Client, key, counter, old, next string) (ok bool, count string, err error) {
	got, err := c.RunEach(ctx, casScript, [][]string{{key, counter}}, [][]any{{old, next}})
	if err != nil {
		return false, "", err
	}
	return string(got[0][0]) == "1", string(got[0][1]), nil
}

func conformRunEach(t *testing.T, c *store.Client, prefix string) {
	ctx := t.Context()
	key, counter := "{"+prefix+"}cas", "{"+prefix+"}count"
	for _, x := range []struct {
		old, next string
		want      bool
		count     string
	}{
		{"r0", "r1", false, "0"},
		{"", "r1", true, "1"}, {"", "r1", true, "1"}, // a retry whose first copy has landed
		{"", "r2", false, "1"}, {"r1", "r\x00\xff", true, "2"}, {"r1", "r3", false, "2"},
	} {
		ok, n, err := cas(ctx, c, key, counter, x.old, x.next)
		require.NoError(t, err)
		require.Equal(t, x.want, ok, "%s -> %s", x.old, x.next)
		require.Equal(t, x.count, n, "%s -> %s", x.old, x.next)
	}
	var wins atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			ok, _, err := cas(ctx, c, key, counter, "r\x00\xff", fmt.Sprint("w", i))
			if err == nil && ok {
				wins.Add(1)
			}
		})
	}
	wg.Wait()
	require.Equal(t, int64(1), wins.Load())

	// Many at once, over many slots, some of them of a script that no node knows: answers in the order asked.
	fresh := fmt.Sprintf("-- %s\n%s", prefix, casScript)
	var keys [][]string
	var args [][]any
	for i := range 64 {
		tag := fmt.Sprintf("{%s%d}", prefix, i)
		keys, args = append(keys, []string{tag + "cas", tag + "n"}), append(args, []any{"", fmt.Sprint("v", i)})
	}
	for range 2 {
		got, err := c.RunEach(ctx, fresh, keys, args)
		require.NoError(t, err)
		for i := range keys {
			require.Equal(t, [][]byte{[]byte("1"), []byte("1")}, got[i])
		}
	}
	values, err := c.MGet(ctx, keys[7][0], keys[40][0])
	require.NoError(t, err)
	require.Equal(t, [][]byte{[]byte("v7"), []byte("v40")}, values)
	_, err = c.RunEach(ctx, "return redis.call('LPUSH', KEYS[1], 'x')", keys[:2], args[:2])
	require.ErrorContains(t, err, "WRONGTYPE")
}

// conformPipeline has every command that Weft sends in one.
func conformPipeline(t *testing.T, c *store.Client, prefix string) {
	ctx := t.Context()
	k := func(s string) string { return "{" + prefix + "}" + s }
	p := c.Pipe()
	push := p.Do(ctx, "RPUSH", k("list"), "x", "y", "z")
	rng := p.Do(ctx, "LRANGE", k("list"), 0, 1)
	none := p.Do(ctx, "GET", k("none"))
	p.Do(ctx, "ZADD", k("timers"), 1773620460000, "late")
	p.Do(ctx, "ZADD", k("timers"), 5, "due")
	due := p.Do(ctx, "ZRANGEBYSCORE", k("timers"), "-inf", 10, "LIMIT", 0, 500)
	p.Do(ctx, "SADD", k("seen"), "\x01\xff", "b")
	expire := p.Do(ctx, "PEXPIRE", k("seen"), 60_000)
	seen := p.Do(ctx, "SMISMEMBER", k("seen"), "\x01\xff", "c")
	p.Do(ctx, "HSET", k("meta"), "applied", "12", "v", "1")
	meta := p.Do(ctx, "HMGET", k("meta"), "applied", "nextseq", "v")
	all := p.Do(ctx, "HGETALL", k("meta"))
	require.NoError(t, p.Exec(ctx))
	require.Equal(t, int64(3), push.Int())
	require.Len(t, rng.Slice(), 2)
	require.Nil(t, none.Bytes())
	require.Len(t, due.Slice(), 1)
	text, _ := due.Slice()[0].Text()
	require.Equal(t, "due", text)
	require.Equal(t, int64(1), expire.Int())
	require.Equal(t, []int64{1, 0}, []int64{seen.Slice()[0].Int(), seen.Slice()[1].Int()})
	vs := meta.Slice()
	require.Equal(t, int64(12), vs[0].Int())
	_, has := vs[1].Text()
	require.False(t, has)
	require.Len(t, all.Slice(), 4, "a flat array, whatever the protocol")

	p = c.Pipe()
	p.Do(ctx, "GET", k("list"))
	require.ErrorContains(t, p.Exec(ctx), "WRONGTYPE")
}

// guarded is a script like a slot's: it compares what was read, and then writes all or nothing.
var guarded = store.NewScript(`
if redis.call('GETRANGE', KEYS[1], 1, 2) ~= ARGV[1] then return {'revision', 0} end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('RPUSH', KEYS[2], ARGV[3])
redis.call('ZADD', KEYS[3], ARGV[4], 'm')
return {'ok', redis.call('LLEN', KEYS[2])}`)

func conformScript(t *testing.T, c *store.Client, prefix string) {
	ctx := t.Context()
	keys := []string{"{" + prefix + "}state", "{" + prefix + "}outbox", "{" + prefix + "}timers"}
	run := func(rev, value string) (string, int64, error) {
		r, err := guarded.Run(ctx, c, keys, rev, value, "entry", 7)
		if err != nil {
			return "", 0, err
		}
		status, _ := r.Slice()[0].Text()
		return status, r.Slice()[1].Int(), nil
	}
	status, n, err := run("", "\x01aa")
	require.NoError(t, err)
	require.Equal(t, "ok", status)
	require.Equal(t, int64(1), n)
	status, _, err = run("zz", "\x01cc")
	require.NoError(t, err)
	require.Equal(t, "revision", status)
	status, n, err = run("aa", "\x01bb")
	require.NoError(t, err)
	require.Equal(t, "ok", status)
	require.Equal(t, int64(2), n)
}

// conformSlots: pipelines may span slots, scripts need not be loaded anywhere first.
func conformSlots(t *testing.T, c *store.Client, prefix string) {
	ctx := t.Context()
	const slots = 64
	var keys []string
	var groups [][]string
	for i := range slots {
		tag := fmt.Sprintf("{%s%d}", prefix, i)
		k := tag + "s"
		keys, groups = append(keys, k), append(groups, []string{tag + "n", k, tag + "none"})
		ok, _, err := cas(ctx, c, k, tag+"n", "", fmt.Sprint("v", i))
		require.NoError(t, err)
		require.True(t, ok)
	}
	got, err := c.MGet(ctx, keys...)
	require.NoError(t, err)
	for i := range keys {
		require.Equal(t, fmt.Sprint("v", i), string(got[i]), "answers in the order asked")
	}
	together, err := c.MGetGroups(ctx, groups)
	require.NoError(t, err)
	for i := range groups {
		require.Equal(t, [][]byte{[]byte("1"), fmt.Appendf(nil, "v%d", i), nil}, together[i])
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = c.MGet(ended, keys...)
	require.ErrorIs(t, err, context.Canceled)
}
