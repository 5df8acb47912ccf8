-- Rule 2: the one script by which a slot changes. All keys carry the slot's hash tag.
-- KEYS: 1 meta, 2 outbox, 3 moves, 4 timers, 5 positions, then nstates state keys, then nsets id sets.
-- ARGV: incarnation that the caller has read; expected applied offset ('' = a foreign move or a trim: not compared),
--       new applied offset ('' = unchanged), what the slot vouches for ('' = unchanged),
--       published below ('' = nothing to trim), moves done below ('' = nothing to trim),
--       nstates, then per state: expected revision ('' = absent), value, timer score ('' = none, '=' = as it is), member;
--       nout, then entries; nmoves, then entries; npos, then field, value;
--       nsets, then per set: ttl in ms, n, then members.
-- A slot of another incarnation was rebuilt since: nothing of what the caller knows is true there.
-- Field writes of meta counts what was accepted, whoever asked for it: a slot that counts less than it did has lost
-- writes, also those that leave the applied offset where it was.
-- Answer: {status, first sequence of these outputs, first sequence of these moves, published below, writes}
local i = 0
local function arg() i = i + 1; return ARGV[i] end
local function n() return tonumber(arg()) end
local meta = redis.call('HMGET', KEYS[1], 'applied', 'nextseq', 'pubseq', 'nextmov', 'movdone', 'inc', 'v', 'writes')
local nextseq, pubseq = tonumber(meta[2] or 0), tonumber(meta[3] or 0)
local nextmov, movdone = tonumber(meta[4] or 0), tonumber(meta[5] or 0)
local writes = tonumber(meta[8] or 0)

if arg() ~= (meta[6] or '') then return {'incarnation', nextseq, nextmov, pubseq, writes} end

-- First all that is compared, before anything is written.
local status = 'ok'
local expect, applied, vouch, pub, mov = arg(), arg(), arg(), arg(), arg()
if expect ~= '' and expect ~= (meta[1] or 'none') then status = 'applied' end
local nstates = n()
local first = i
if status == 'ok' then
  for s = 1, nstates do
    if redis.call('GETRANGE', KEYS[5 + s], 1, 8) ~= ARGV[first + 4 * s - 3] then status = 'revision'; break end
  end
end

-- A full Redis (maxmemory, noeviction) refuses a script's first write if that may take memory, and none after it.
-- So the first write of what is accepted is one that it may refuse: then nothing was written. A call that is not
-- accepted, such as a trim, begins with LTRIM, which gives memory back: that is how a full slot is emptied.
if status == 'ok' then
  writes = redis.call('HINCRBY', KEYS[1], 'writes', 1)
  if not meta[7] then redis.call('HSET', KEYS[1], 'v', '1') end
end

-- Trimming is right whether or not the rest is accepted: what is published stays published.
if pub ~= '' and tonumber(pub) > pubseq then
  redis.call('LTRIM', KEYS[2], tonumber(pub) - pubseq, -1)
  pubseq = tonumber(pub)
  redis.call('HSET', KEYS[1], 'pubseq', pub)
end
if mov ~= '' and tonumber(mov) > movdone then
  redis.call('LTRIM', KEYS[3], tonumber(mov) - movdone, -1)
  redis.call('HSET', KEYS[1], 'movdone', mov)
end
if status ~= 'ok' then return {status, nextseq, nextmov, pubseq, writes} end

-- Commands are joined: a call from Lua costs as much as the work of a short one. unpack fails near 8,000 values.
local chunk = 1000
local function all(command, key, count)
  while count > 0 do
    local m = math.min(count, chunk)
    redis.call(command, key, unpack(ARGV, i + 1, i + m))
    i, count = i + m, count - m
  end
end
local sets = {}
for s = 1, nstates do
  local at = first + 4 * s - 3
  sets[#sets + 1] = KEYS[5 + s]
  sets[#sets + 1] = ARGV[at + 1]
  if #sets >= chunk or s == nstates then
    redis.call('MSET', unpack(sets))
    sets = {}
  end
  local score, member = ARGV[at + 2], ARGV[at + 3]
  if score == '' then redis.call('ZREM', KEYS[4], member) elseif score ~= '=' then redis.call('ZADD', KEYS[4], score, member) end
end
i = first + 4 * nstates
local nout = n()
all('RPUSH', KEYS[2], nout)
local nmov = n()
all('RPUSH', KEYS[3], nmov)
if nout > 0 then redis.call('HSET', KEYS[1], 'nextseq', string.format('%.0f', nextseq + nout)) end
if nmov > 0 then redis.call('HSET', KEYS[1], 'nextmov', string.format('%.0f', nextmov + nmov)) end
all('HSET', KEYS[5], 2 * n())
for s = 1, n() do
  local ttl = arg()
  all('SADD', KEYS[5 + nstates + s], n())
  redis.call('PEXPIRE', KEYS[5 + nstates + s], ttl)
end
if applied ~= '' then redis.call('HSET', KEYS[1], 'applied', applied) end
if vouch ~= '' then redis.call('HSET', KEYS[1], 'vouch', vouch) end
return {'ok', nextseq, nextmov, pubseq, writes}
