-- Find leases that nobody extended in time, and hold them for the caller a little longer.
--
-- ARGV  1 now_ms  2 hold_ms  3 limit
-- RETURNS  per lease: task, token, generation, tenant
--
-- The hold keeps other schedulers from finding the same leases; a caller that
-- dies meanwhile leaves them to expire again.
local now, hold = tonumber(ARGV[1]), tonumber(ARGV[2])
local over = call('ZRANGE', leases, '-inf', now, 'BYSCORE', 'LIMIT', 0, tonumber(ARGV[3]))
local result, expiries = {}, {}
for n, packed in ipairs(fetch(state, over)) do
  local fields, r = unpack_state(packed), #result
  expiries[#expiries + 1], expiries[#expiries + 2] = now + hold, over[n]
  result[r + 1], result[r + 2] = over[n], fields[TOKEN]
  result[r + 3], result[r + 4] = fields[GENERATION], fields[TENANT]
end
many('ZADD', leases, expiries)
return result
