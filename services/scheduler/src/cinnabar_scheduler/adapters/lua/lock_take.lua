-- Take a lock that nobody holds, or that this token holds already.
--
-- KEYS  1 cinnabar:{lock:<name>}:  prefix of
--         …holder  STRING token; its TTL is that of the lock
--         …fence   STRING number of the last acquisition; lives a day longer than the lock
-- ARGV  1 token  2 ttl_ms
-- RETURNS  the number of this acquisition, or nil: somebody else holds it
--
-- Numbers start from this server's time in microseconds, so they rise across a
-- loss of its data, whatever the clocks of the schedulers say.
local holder, fence_key = KEYS[1] .. 'holder', KEYS[1] .. 'fence'
if not redis.call('SET', holder, ARGV[1], 'NX', 'PX', ARGV[2]) then
  if redis.call('GET', holder) ~= ARGV[1] then
    return nil
  end
  redis.call('PEXPIRE', holder, ARGV[2])
end
local time = redis.call('TIME')
local last = tonumber(redis.call('GET', fence_key) or '0')
local fence = math.max(last + 1, tonumber(time[1]) * 1000000 + tonumber(time[2]))
redis.call('SET', fence_key, string.format('%.0f', fence), 'PX', 86400000 + tonumber(ARGV[2]))
return fence
