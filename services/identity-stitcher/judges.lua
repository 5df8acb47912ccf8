-- Who works on the graph, and by which rules: one hash. A process is in it for a time, and says so again before it is over.
--   KEYS[1]  the hash: rules = what they judge by; before, changed = what that was until then, and when it changed (ms);
--            run:PROCESS = until when (ms)
--   ARGV[1]  run:PROCESS   ARGV[2]  what it judges by   ARGV[3]  for how long (ms); 0: it leaves
--   ARGV[4]  what else it can work beside, as it was found there; empty: nothing
-- It answers 1 and what stood there, if it may work; else 0, what stands there, and who works, each with the time (ms) left.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if ARGV[3] == '0' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return {'1', ''}
end
local all, others = redis.call('HGETALL', KEYS[1]), {}
local rules = ''
for i = 1, #all, 2 do
  if all[i] == 'rules' then
    rules = all[i + 1]
  elseif string.sub(all[i], 1, 4) == 'run:' and all[i] ~= ARGV[1] then
    local left = tonumber(all[i + 1]) - now
    if left <= 0 then
      redis.call('HDEL', KEYS[1], all[i])
    else
      others[#others + 1] = string.sub(all[i], 5) .. ' ' .. string.format('%d', left)
    end
  end
end
if rules ~= ARGV[2] and (ARGV[4] == '' or rules ~= ARGV[4]) then
  if #others > 0 then
    table.insert(others, 1, rules)
    table.insert(others, 1, '0')
    return others
  end
  redis.call('HSET', KEYS[1], 'rules', ARGV[2], 'before', rules, 'changed', string.format('%d', now))
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', now + ARGV[3]))
return {'1', rules}
