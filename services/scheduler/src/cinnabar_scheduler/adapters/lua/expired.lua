-- Find leases that nobody extended in time, and hold them for the caller a little longer.
--
-- KEYS  1 …:leases  2 …:state  (see enqueue.lua)
-- ARGV  1 now_ms  2 hold_ms  3 limit
-- RETURNS  per lease: task, token, generation, tenant
--
-- The hold keeps other schedulers from finding the same leases; a caller that
-- dies meanwhile leaves them to expire again.
local leases, state = KEYS[1], KEYS[2]
local now, hold = tonumber(ARGV[1]), tonumber(ARGV[2])
local result = {}
for _, task in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, tonumber(ARGV[3]))) do
  local known = redis.call('HGET', state, task)
  if known then
    local fields = cmsgpack.unpack(known)
    redis.call('ZADD', leases, now + hold, task)
    local n = #result
    result[n + 1], result[n + 2], result[n + 3], result[n + 4] = task, fields[6], fields[1], fields[2]
  else
    redis.call('ZREM', leases, task)
  end
end
return result
