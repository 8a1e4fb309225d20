-- Look for something that may change.
--
-- KEYS  1 entry: "<shard>:<lsn>\n<value>"
-- RETURNS  {entry or '' when there is none, ms that it may be used, unix ms}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local entry = redis.call('GET', KEYS[1])
if not entry then
  return {'', 0, now}
end
return {entry, redis.call('PTTL', KEYS[1]), now}
