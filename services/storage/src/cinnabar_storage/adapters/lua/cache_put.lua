-- Keep what was read, unless it is too old or something newer is there.
--
-- KEYS  1 entry, as in cache_get.lua
-- ARGV  1 shard  2 lsn  3 value  4 unix ms at which it was asked for  5 maximum age in ms
-- RETURNS  1 when it is kept, else 0
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local left = ARGV[4] + ARGV[5] - now
if left <= 0 then
  return 0
end
local shard, lsn = string.match(redis.call('GETRANGE', KEYS[1], 0, 63), '^(%d+):(%d+)')
if shard == ARGV[1] and tonumber(ARGV[2]) < tonumber(lsn) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2] .. '\n' .. ARGV[3], 'PX', left)
return 1
