-- Count a partition.
--
-- ARGV  1 tenant or ''
-- RETURNS  {ready, delayed, leased, unix ms since when the oldest of the tenants' first tasks is ready or -1,
--           ready of the tenant, tenants with ready work, ready of tenants at their cap, control or ''}
local LOOKED_AT = 1000  -- tenants; the first in turn, then those at their cap
local left_to_see, capped, firsts = LOOKED_AT, 0, {}
for _, order in ipairs({turns, regrade_turns, parked}) do
  for _, tenant in ipairs(left_to_see > 0 and call('ZRANGE', order, 0, left_to_see - 1) or {}) do
    left_to_see = left_to_see - 1
    for _, line in ipairs({ready .. tenant, regrade .. tenant}) do
      firsts[#firsts + 1] = call('ZRANGE', line, 0, 0)[1]
    end
  end
end
local oldest = -1
for _, packed in ipairs(fetch(state, firsts)) do
  local ready_at = unpack_state(packed)[READY_AT]
  if oldest < 0 or ready_at < oldest then
    oldest = ready_at
  end
end
for _, tenant in ipairs(call('ZRANGE', parked, 0, LOOKED_AT - 1)) do
  capped = capped + call('ZCARD', ready .. tenant) + call('ZCARD', regrade .. tenant)
end
local delays, held = call('ZCARD', delayed), call('ZCARD', leases)
local with_both = call('EXISTS', regrade_turns) == 1 and call('ZINTERCARD', 2, turns, regrade_turns) or 0
return {
  -- A task is ready, delayed or under lease, and has a state.
  call('HLEN', state) - delays - held, delays, held, oldest,
  call('ZCARD', ready .. ARGV[1]) + call('ZCARD', regrade .. ARGV[1]),
  call('ZCARD', turns) + call('ZCARD', regrade_turns) - with_both + call('ZCARD', parked),
  capped, call('GET', prefix .. 'control') or '',
}
