-- Release an advisory lock if its owner holds it.
--
-- KEYS  1 cinnabar:lock:…  STRING owner
-- ARGV  1 owner
-- RETURNS  1 released, 0 not held
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
