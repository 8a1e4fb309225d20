-- Drop what changed, and tell everybody.
--
-- KEYS  1 channel; the others are entries, as in cache_get.lua, possibly none
-- ARGV  1 message
-- RETURNS  how many have heard it
local AT_ONCE = 1000  -- what fits on the stack
for first = 2, #KEYS, AT_ONCE do
  redis.call('UNLINK', unpack(KEYS, first, math.min(first + AT_ONCE - 1, #KEYS)))
end
return redis.call('PUBLISH', KEYS[1], ARGV[1])
