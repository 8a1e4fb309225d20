-- Say how reserved requests of one tenant ended.
--
-- KEYS  {limits:<tenant>}:key:<digest of user and key>, one per settlement (see admit.lua)
-- ARGV  1 now_us  2 answer_us: how long an answer is kept
--       then three per settlement: reservation, 1 (it has an answer) or 0 (the key is free again), answer
-- RETURNS  per settlement 1, or 0 when its reservation did not stand any more (then nothing changed)
local now, answer_us = tonumber(ARGV[1]), tonumber(ARGV[2])
local settled = {}
for i, key in ipairs(KEYS) do
  local a = 3 * i
  local known = redis.call('GET', key)
  local fields = known and cmsgpack.unpack(known)
  settled[i] = 0
  if fields and fields[2] > now and fields[3] ~= '' and fields[3] == ARGV[a] then
    settled[i] = 1
    if ARGV[a + 1] == '1' then
      local done = cmsgpack.pack({fields[1], now + answer_us, '', ARGV[a + 2]})
      redis.call('SET', key, done, 'PX', math.ceil(answer_us / 1000))
    else
      redis.call('DEL', key)
    end
  end
end
return settled
