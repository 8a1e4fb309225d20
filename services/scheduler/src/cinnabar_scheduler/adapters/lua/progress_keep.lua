-- Keep how far tasks are whose leases are still held.
--
-- ARGV  1 ttl_ms of what is kept, then task, token, payload triples
-- RETURNS  tokens that hold no lease any more
local names, lost, kept = {}, {}, {}
for i = 2, #ARGV, 3 do
  names[#names + 1] = ARGV[i]
end
for n, packed in ipairs(fetch(state, names)) do
  local token, payload = ARGV[3 * n], ARGV[3 * n + 1]
  if packed and unpack_state(packed)[TOKEN] == token then
    kept[#kept + 1], kept[#kept + 2] = names[n], token .. '\n' .. payload
  else
    lost[#lost + 1] = token
  end
end
if #kept > 0 then
  many('HSET', progress, kept)
  call('PEXPIRE', progress, ARGV[1])
end
return lost
