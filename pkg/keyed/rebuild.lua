-- A rebuild's two steps on a slot. All keys carry the slot's hash tag.
-- KEYS: 1 meta, 2 outbox, 3 moves, 4 timers, 5 positions.
-- ARGV: 'begin', incarnation, writes that Kafka's commit knows of: whatever the slot holds is of no use any more.
--         From here on scripts of another incarnation are refused, and workers stop at the mark. The rest of the
--         slot's keys is deleted after this.
--         But the old slot may know of higher sequences than the topics do: kept until the end, over any number of
--         rebuilds that die in between ('kept'; what a slot under rebuild counts itself was told to nobody).
--         The count of writes goes on: a slot of before the rebuild must never look newer than one of behind it.
--       'end', incarnation, applied offset, least first sequence: the slot is whole.
-- Answer: 1 done (before, perhaps), 0 the slot is of another incarnation.
local meta = redis.call('HMGET', KEYS[1], 'inc', 'rebuild', 'kept', 'nextseq', 'writes')
local kept = tonumber(meta[3] or 0) or 0
if ARGV[1] == 'begin' then
  if not meta[2] then kept = math.max(kept, tonumber(meta[4] or 0) or 0) end
  local writes = math.max(tonumber(meta[5] or 0) or 0, tonumber(ARGV[3]))
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])
  redis.call('HSET', KEYS[1], 'inc', ARGV[2], 'rebuild', '1', 'v', '2', 'applied', '0', 'kept', string.format('%.0f', kept),
    'writes', string.format('%.0f', writes))
  return 1
end
if meta[1] ~= ARGV[2] then return 0 end
if not meta[2] then return 1 end
local first = math.max(kept, tonumber(ARGV[4]))
redis.call('HSET', KEYS[1], 'applied', ARGV[3], 'pubseq', string.format('%.0f', first), 'v', '1',
  'nextseq', string.format('%.0f', first + redis.call('LLEN', KEYS[2])))
redis.call('HDEL', KEYS[1], 'rebuild', 'kept')
return 1
