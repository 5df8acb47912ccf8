-- A rebuild's two steps on a slot. All keys carry the slot's hash tag.
-- KEYS: 1 meta, 2 outbox, 3 moves, 4 timers, 5 positions.
-- ARGV: 'begin', incarnation: whatever the slot holds is of no use any more. From here on scripts of another
--         incarnation are refused, and workers stop at the mark. The rest of the slot's keys is deleted after this.
--       'end', incarnation, applied offset, first sequence: the slot is whole.
-- Answer: 1 done (before, perhaps), 0 the slot is of another incarnation.
local meta = redis.call('HMGET', KEYS[1], 'inc', 'rebuild')
if ARGV[1] == 'begin' then
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])
  redis.call('HSET', KEYS[1], 'inc', ARGV[2], 'rebuild', '1', 'v', '2', 'applied', '0')
  return 1
end
if meta[1] ~= ARGV[2] then return 0 end
if not meta[2] then return 1 end
redis.call('HSET', KEYS[1], 'applied', ARGV[3], 'pubseq', ARGV[4], 'v', '1',
  'nextseq', string.format('%.0f', tonumber(ARGV[4]) + redis.call('LLEN', KEYS[2])))
redis.call('HDEL', KEYS[1], 'rebuild')
return 1
