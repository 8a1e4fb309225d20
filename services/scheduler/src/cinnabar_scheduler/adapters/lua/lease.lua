-- Lease the next tasks: tenants by stride, within a tenant by ready time - head start.
--
-- KEYS  1 …:tenants  2 …:ready  3 …:delayed  4 …:leases  5 …:body  6 …:state  7 …:pass  (see enqueue.lua)
--       8 …:fence    STRING number of the last lease
-- ARGV  1 now_ms  2 lease_ms  3 limit  4 first fence after a loss of Redis (unix us)  5 nonce of this call
--       6 most bytes of bodies, after the first one
-- RETURNS  {due of the next delayed task (0: there is more at once) or -1, then per lease: task, token, generation, delivery, tenant, body}
local tenants, ready, delayed, leases, body, state, pass_key, fence_key = unpack(KEYS)
local now, lease_ms, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local max_bytes = tonumber(ARGV[6])

local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, 1000)
local pass = redis.call('GET', pass_key) or '0'
for _, task in ipairs(due) do
  redis.call('ZREM', delayed, task)
  local known = redis.call('HGET', state, task)
  if known then
    local fields = cmsgpack.unpack(known)
    redis.call('ZADD', ready .. ':' .. fields[2], fields[7] - fields[3], task)
    redis.call('ZADD', tenants, 'NX', pass, fields[2])
  end
end

local picked = {}
while #picked < limit do
  local front = redis.call('ZRANGE', tenants, 0, 1, 'WITHSCORES')
  local tenant = front[1]
  if not tenant then
    break
  end
  local alone = front[3] == nil
  local wanted = alone and (limit - #picked) or 1
  local popped = redis.call('ZPOPMIN', ready .. ':' .. tenant, wanted)
  for i = 1, #popped, 2 do
    picked[#picked + 1] = popped[i]
  end
  local taken = #popped / 2
  local after = tonumber(front[2]) + taken
  pass = string.format('%.0f', after)
  if taken < wanted or redis.call('EXISTS', ready .. ':' .. tenant) == 0 then
    redis.call('ZREM', tenants, tenant)
  else
    redis.call('ZADD', tenants, pass, tenant)
  end
end

local next_due = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
local result = {next_due[2] and tonumber(next_due[2]) or -1}
if #picked == 0 then
  return result
end
-- A tenant that comes next starts where the least served of the present ones is:
-- it neither waits for what others had before, nor makes them wait for it.
local least = redis.call('ZRANGE', tenants, 0, 0, 'WITHSCORES')
pass = least[2] or pass
redis.call('SET', pass_key, pass)
if redis.call('EXISTS', fence_key) == 0 then
  redis.call('SET', fence_key, ARGV[4])
end
local bytes = 0
local fence = redis.call('INCRBY', fence_key, #picked) - #picked
for _, task in ipairs(picked) do
  local known = redis.call('HGET', state, task)
  local fields = known and cmsgpack.unpack(known)
  local payload = known and redis.call('HGET', body, task)
  bytes = bytes + (payload and #payload or 0)
  if known and bytes > max_bytes and #result > 1 then
    redis.call('ZADD', ready .. ':' .. fields[2], fields[7] - fields[3], task)
    redis.call('ZADD', tenants, 'NX', pass, fields[2])
    result[1] = 0
  elseif known then
    fence = fence + 1
    local token = string.format('%.0f', fence) .. '-' .. ARGV[5]
    fields[6], fields[8] = token, fields[8] + 1
    redis.call('HSET', state, task, cmsgpack.pack(fields))
    redis.call('ZADD', leases, now + lease_ms, task)
    local n = #result
    result[n + 1], result[n + 2], result[n + 3] = task, token, fields[1]
    result[n + 4], result[n + 5], result[n + 6] = fields[8], fields[2], payload
  end
end
return result
