-- Count a queue.
--
-- KEYS  1 …:tenants  2 …:ready  3 …:delayed  4 …:leases  5 …:state  (see enqueue.lua)
-- RETURNS  {ready, delayed, leased, unix ms since when the oldest of the tenants' first tasks is ready, or -1}
local tenants, ready, delayed, leases, state = unpack(KEYS)
local waiting, oldest = 0, -1
for _, tenant in ipairs(redis.call('ZRANGE', tenants, 0, -1)) do
  local key = ready .. ':' .. tenant
  waiting = waiting + redis.call('ZCARD', key)
  local first = redis.call('ZRANGE', key, 0, 0)[1]
  local known = first and redis.call('HGET', state, first)
  if known then
    local ready_at = cmsgpack.unpack(known)[7]
    if oldest < 0 or ready_at < oldest then
      oldest = ready_at
    end
  end
end
return {waiting, redis.call('ZCARD', delayed), redis.call('ZCARD', leases), oldest}
