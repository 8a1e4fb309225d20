-- Extend leases that are still held.
--
-- KEYS  1 …:leases  2 …:state  (see enqueue.lua)
-- ARGV  1 now_ms  2 lease_ms, then task, token pairs
-- RETURNS  tokens that hold no lease any more
local leases, state = KEYS[1], KEYS[2]
local expiry = tonumber(ARGV[1]) + tonumber(ARGV[2])
local lost = {}
for i = 3, #ARGV, 2 do
  local known = redis.call('HGET', state, ARGV[i])
  if known and cmsgpack.unpack(known)[6] == ARGV[i + 1] and redis.call('ZSCORE', leases, ARGV[i]) then
    redis.call('ZADD', leases, 'XX', expiry, ARGV[i])
  else
    lost[#lost + 1] = ARGV[i + 1]
  end
end
return lost
