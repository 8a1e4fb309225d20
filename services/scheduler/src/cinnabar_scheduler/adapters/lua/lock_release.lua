-- Give a lock back.
--
-- KEYS  1 cinnabar:{lock:<name>}:  prefix (see lock_take.lua)
-- ARGV  1 token
-- RETURNS  1 released, 0 the token does not hold it
local holder = KEYS[1] .. 'holder'
if redis.call('GET', holder) == ARGV[1] then
  return redis.call('DEL', holder)
end
return 0
