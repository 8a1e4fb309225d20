-- Give a lock back.
--
-- KEYS  1 cinnabar:{lock:<name>}:holder  STRING token
-- ARGV  1 token
-- RETURNS  1 released, 0 the token does not hold it
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
