-- Drop what changed, remember the changes for a while, and tell everybody.
--
-- KEYS  1 channel; the others are entries, as in cache_get.lua, possibly none
-- ARGV  1 shard  2 lsn  3 how long to remember, in ms  4 message
-- RETURNS  how many have heard it
local mark, lsn = 'T' .. ARGV[1] .. ':' .. ARGV[2], tonumber(ARGV[2])
for i = 2, #KEYS do
  local entry = KEYS[i]
  -- Of two changes the later one counts, in whichever order they are told.
  local known = redis.call('SET', entry, mark, 'PX', ARGV[3], 'GET')
  if known and string.byte(known) == 84 then
    local shard, later = string.match(known, '^T(%d+):(%d+)')
    if shard == ARGV[1] and tonumber(later) > lsn then
      redis.call('SET', entry, known, 'PX', ARGV[3])
    end
  end
end
return redis.call('PUBLISH', KEYS[1], ARGV[4])
