-- Find tasks that have no grade at their deadline, and put each under a lease of the caller.
--
-- ARGV  1 now_us  2 hold_ms  3 limit  4 nonce of this call
-- RETURNS  per task: task, new token, generation, tenant, token that was revoked or ''
--
-- The deadline moves on by the hold: a caller that dies leaves them to be found again.
local now_us, hold, nonce = tonumber(ARGV[1]), tonumber(ARGV[2]), '-' .. ARGV[4]
local now = math.floor(now_us / 1000)
local over = call('ZRANGE', deadlines, '-inf', now, 'BYSCORE', 'LIMIT', 0, tonumber(ARGV[3]))
if #over == 0 then
  return {}
end
local fence = new_fences(#over, now_us)
local result, states, expiries, begun, touched = {}, {}, {}, {}, {}
for n, packed in ipairs(fetch(state, over)) do
  local task, fields, r = over[n], unpack_state(packed), #result
  local tenant, token = fields[TENANT], whole(fence) .. nonce
  fence = fence + 1
  result[r + 1], result[r + 2], result[r + 3] = task, token, fields[GENERATION]
  result[r + 4], result[r + 5] = tenant, fields[TOKEN]
  if fields[TOKEN] == '' then
    begun[tenant] = (begun[tenant] or 0) + 1
    if fields[DUE] > 0 then
      call('ZREM', delayed, task)
    else
      call('ZREM', line_of(fields), task)
    end
  end
  fields[TOKEN], fields[DUE] = token, 0
  states[#states + 1], states[#states + 2] = task, pack(fields)
  expiries[#expiries + 1], expiries[#expiries + 2] = now + hold, task
end
many('HSET', state, states)
many('ZADD', leases, expiries)
many('ZADD', deadlines, expiries)
count_running(begun)
for tenant in pairs(begun) do
  settle(tenant)
end
return result
