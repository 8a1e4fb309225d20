-- Forget tasks up to a generation, wherever they are.
--
-- KEYS  1 …:ready  2 …:delayed  3 …:leases  4 …:body  5 …:state  (see enqueue.lua)
-- ARGV  task, generation pairs
-- RETURNS  {number of tasks that were there, then the tokens of those under lease}
--
-- A tenant whose last ready task is removed stays among the tenants until the
-- next lease finds its set empty.
local ready, delayed, leases, body, state = unpack(KEYS)
local result = {0}
for i = 1, #ARGV, 2 do
  local task = ARGV[i]
  local known = redis.call('HGET', state, task)
  if known then
    local fields = cmsgpack.unpack(known)
    if fields[1] <= tonumber(ARGV[i + 1]) then
      result[1] = result[1] + 1
      if redis.call('ZREM', leases, task) == 1 then
        result[#result + 1] = fields[6]
      else
        redis.call('ZREM', ready .. ':' .. fields[2], task)
        redis.call('ZREM', delayed, task)
      end
      redis.call('HDEL', body, task)
      redis.call('HDEL', state, task)
    end
  end
end
return result
