-- What time it is here.
--
-- KEYS  1 any key of the server that is asked
-- RETURNS  {unix seconds, microseconds}
return redis.call('TIME')
