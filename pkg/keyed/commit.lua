-- Rule 2: the one script by which a slot changes. All keys carry the slot's hash tag.
-- KEYS: 1 meta, 2 outbox, 3 moves, 4 timers, 5 positions, then nstates state keys, then nsets id sets.
-- ARGV: incarnation that the caller has read; expected applied offset ('' = a foreign move or a trim: not compared), new applied offset ('' = unchanged),
--       published below ('' = nothing to trim), moves done below ('' = nothing to trim),
--       nstates, then per state: expected revision ('' = absent), value, timer score ('' = none), member;
--       nout, then entries; nmoves, then entries; npos, then field, value;
--       nsets, then per set: ttl in ms, n, then members.
-- A slot of another incarnation was rebuilt since: nothing of what the caller knows is true there.
-- Answer: {status, first sequence of these outputs, first sequence of these moves, published below}
local i = 0
local function arg() i = i + 1; return ARGV[i] end
local function n() return tonumber(arg()) end
local meta = redis.call('HMGET', KEYS[1], 'applied', 'nextseq', 'pubseq', 'nextmov', 'movdone', 'inc')
local nextseq, pubseq = tonumber(meta[2] or 0), tonumber(meta[3] or 0)
local nextmov, movdone = tonumber(meta[4] or 0), tonumber(meta[5] or 0)

if arg() ~= (meta[6] or '') then return {'incarnation', nextseq, nextmov, pubseq} end

-- Trimming is right whether or not the rest is accepted: what is published stays published.
local expect, applied, pub, mov = arg(), arg(), arg(), arg()
if pub ~= '' and tonumber(pub) > pubseq then
  redis.call('LTRIM', KEYS[2], tonumber(pub) - pubseq, -1)
  pubseq = tonumber(pub)
  redis.call('HSET', KEYS[1], 'pubseq', pub)
end
if mov ~= '' and tonumber(mov) > movdone then
  redis.call('LTRIM', KEYS[3], tonumber(mov) - movdone, -1)
  redis.call('HSET', KEYS[1], 'movdone', mov)
end

if expect ~= '' and expect ~= (meta[1] or 'none') then return {'applied', nextseq, nextmov, pubseq} end
local nstates = n()
local first = i
for s = 1, nstates do
  local rev = arg()
  local cur = redis.call('GETRANGE', KEYS[5 + s], 1, 8)
  if cur ~= rev then return {'revision', nextseq, nextmov, pubseq} end
  i = i + 3
end
i = first
for s = 1, nstates do
  arg()
  redis.call('SET', KEYS[5 + s], arg())
  local score, member = arg(), arg()
  if score == '' then redis.call('ZREM', KEYS[4], member) else redis.call('ZADD', KEYS[4], score, member) end
end
local function push(key, count)
  for _ = 1, count do redis.call('RPUSH', key, arg()) end
end
local nout = n()
push(KEYS[2], nout)
local nmov = n()
push(KEYS[3], nmov)
if nout > 0 then redis.call('HSET', KEYS[1], 'nextseq', string.format('%.0f', nextseq + nout)) end
if nmov > 0 then redis.call('HSET', KEYS[1], 'nextmov', string.format('%.0f', nextmov + nmov)) end
for _ = 1, n() do redis.call('HSET', KEYS[5], arg(), arg()) end
for s = 1, n() do
  local ttl = arg()
  for _ = 1, n() do redis.call('SADD', KEYS[5 + nstates + s], arg()) end
  redis.call('PEXPIRE', KEYS[5 + nstates + s], ttl)
end
if applied ~= '' then redis.call('HSET', KEYS[1], 'applied', applied) end
redis.call('HSETNX', KEYS[1], 'v', '1')
return {'ok', nextseq, nextmov, pubseq}
