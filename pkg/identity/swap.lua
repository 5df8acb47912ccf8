-- Swaps values of nodes of one bucket, each by itself, and counts what it swapped.
--
-- KEYS: the bucket's ledger; the page that is split next; the page that this makes; more pages.
-- ARGV: pages that the caller knows the bucket to have; nodes that a page is meant to hold; twice the pages that this round
-- of splits began with; then of each swap: which of KEYS its page is, the node, its old entry ('' for none), its new one.
--
-- Answers the ledger as it is then and, of each swap, '1' where the new entry stands now: because the old one stood there, or
-- because an earlier copy of this call has landed. The ledger alone: the bucket has other pages, nothing was done.
local byte, sub, find = string.byte, string.sub, string.find

-- The end of the entry that begins at a place of a page, and where its node stands.
local function entry(page, at, width)
  local len, node = byte(page, at), at + 1
  if len >= 128 then
    local hi, lo = byte(page, at + 1, at + 2)
    len, node = (len - 128) * 65536 + hi * 256 + lo, at + 3
  end
  return node + width + len - 1, node
end

-- Where the entry of a node begins and ends in a page, nil if there is none. The node may stand in others, too.
local function lookup(page, node)
  local at, hit = 1, find(page, node, 1, true)
  while hit do
    while at < hit do
      local last, here = entry(page, at, #node)
      if here == hit then return at, last end
      at = last + 1
    end
    hit = at < #page and find(page, node, at + 1, true)
  end
end

local ledger = redis.call('GET', KEYS[1])
local writes, pages, nodes = 0, 1, 0
if ledger then
  local w, p, n = string.match(ledger, '^(%d+)/(%d+)/(%d+)$')
  if not w then return {ledger} end
  writes, pages, nodes = tonumber(w), tonumber(p), tonumber(n)
end
if pages ~= tonumber(ARGV[1]) then return {ledger or ''} end

local held, changed, answer, swapped = {}, {}, {}, 0
for i = 4, #ARGV, 4 do
  local k, node, old, new = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local page = held[k] or redis.call('GET', KEYS[k]) or ''
  local from, to = lookup(page, node)
  local now = from and sub(page, from, to) or ''
  local ok = now == new
  if not ok and now == old then
    if from then
      page = sub(page, 1, from - 1) .. new .. sub(page, to + 1)
    else
      page, nodes = page .. new, nodes + 1
    end
    ok, changed[k], swapped = true, true, swapped + 1
  end
  held[k] = page
  answer[#answer + 1] = ok and '1' or '0'
end

if swapped > 0 then
  writes = writes + swapped
  if nodes > pages * tonumber(ARGV[2]) then
    local page, round, width = held[2] or redis.call('GET', KEYS[2]) or '', tonumber(ARGV[3]), #ARGV[5]
    local stay, go, at = {}, {}, 1
    while at <= #page do
      local last, node = entry(page, at, width)
      local a, b, c, d = byte(page, node + 11, node + 14)
      local to = (a * 16777216 + b * 65536 + c * 256 + d) % round == pages and go or stay
      to[#to + 1] = sub(page, at, last)
      at = last + 1
    end
    held[2], held[3], changed[2], changed[3] = table.concat(stay), table.concat(go), true, true
    pages = pages + 1
  end
  ledger = string.format('%.0f/%.0f/%.0f', writes, pages, nodes)
  redis.call('SET', KEYS[1], ledger) -- first: a full Redis refuses a script's first write and none after it
  for k in pairs(changed) do redis.call('SET', KEYS[k], held[k]) end
end
table.insert(answer, 1, ledger or '')
return answer
