-- Put tasks into a queue, each at most once per generation.
--
-- KEYS  1 …:tenants  ZSET  tenant -> pass (stride scheduling), those with ready tasks
--       2 …:ready    prefix of one ZSET per tenant: task -> ready time - head start (ms)
--       3 …:delayed  ZSET  task -> due (unix ms)
--       4 …:leases   ZSET  task -> lease expiry (unix ms)
--       5 …:body     HASH  task -> what a worker needs (opaque)
--       6 …:state    HASH  task -> cmsgpack {generation, tenant, head start, failures, faults, token, ready at, deliveries}
--       7 …:pass     STRING pass of the tenant served last
-- ARGV  1 now_ms  2 wake channel  3 queue name
--       then six per task: task, tenant, generation, head_start_ms, ready_ms, body
-- RETURNS  positions (from 0) of the tasks that were there already
local tenants, ready, delayed, leases, body, state, pass_key = unpack(KEYS)
local now = tonumber(ARGV[1])
local added, there = 0, {}
local pass = nil
for i = 4, #ARGV, 6 do
  local task, tenant, generation = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local head_start, ready_at = tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
  local known = redis.call('HGET', state, task)
  local older = false
  if known then
    local fields = cmsgpack.unpack(known)
    older = fields[1] < generation
    if older then
      redis.call('ZREM', ready .. ':' .. fields[2], task)
      redis.call('ZREM', delayed, task)
      redis.call('ZREM', leases, task)
    end
  end
  if not known or older then
    redis.call('HSET', body, task, ARGV[i + 5])
    redis.call('HSET', state, task, cmsgpack.pack({generation, tenant, head_start, 0, 0, '', ready_at, 0}))
    if ready_at > now then
      redis.call('ZADD', delayed, ready_at, task)
    else
      redis.call('ZADD', ready .. ':' .. tenant, ready_at - head_start, task)
      pass = pass or redis.call('GET', pass_key) or '0'
      redis.call('ZADD', tenants, 'NX', pass, tenant)
    end
    added = added + 1
  else
    there[#there + 1] = (i - 4) / 6
  end
end
if added > 0 then
  redis.call('PUBLISH', ARGV[2], ARGV[3])
end
return there
