-- Hold a lock for another while.
--
-- KEYS  1 cinnabar:{lock:<name>}:holder  STRING token
-- ARGV  1 token  2 ttl_ms
-- RETURNS  1 renewed, 0 the token does not hold it
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
