-- Extend leases that are still held.
--
-- ARGV  1 now_ms  2 lease_ms, then task, token pairs
-- RETURNS  tokens that hold no lease any more
local expiry = tonumber(ARGV[1]) + tonumber(ARGV[2])
local names, lost, expiries = {}, {}, {}
for i = 3, #ARGV, 2 do
  names[#names + 1] = ARGV[i]
end
for n, packed in ipairs(fetch(state, names)) do
  local token = ARGV[2 + 2 * n]
  if packed and unpack_state(packed)[TOKEN] == token then
    expiries[#expiries + 1], expiries[#expiries + 2] = expiry, names[n]
  else
    lost[#lost + 1] = token
  end
end
many('ZADD', leases, expiries)
return lost
