-- Hold a lock for another while.
--
-- KEYS  1 cinnabar:{lock:<name>}:  prefix (see lock_take.lua)
-- ARGV  1 token  2 ttl_ms
-- RETURNS  1 renewed, 0 the token does not hold it
local holder = KEYS[1] .. 'holder'
if redis.call('GET', holder) == ARGV[1] then
  return redis.call('PEXPIRE', holder, ARGV[2])
end
return 0
