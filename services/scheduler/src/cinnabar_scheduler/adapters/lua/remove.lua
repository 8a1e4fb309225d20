-- Forget tasks up to a generation, wherever they are.
--
-- ARGV  1 wake channel  2 queue name, then task, generation pairs
-- RETURNS  {number of tasks that were there, then the tokens of those under lease}
local names, gone, held, ended, seen = {}, {}, {}, {}, {}
local result = {0}
for i = 3, #ARGV, 2 do
  names[#names + 1] = ARGV[i]
end
for n, packed in ipairs(fetch(state, names)) do
  local task = names[n]
  local fields = packed and not seen[task] and unpack_state(packed)
  if fields and fields[GENERATION] <= tonumber(ARGV[2 + 2 * n]) then
    seen[task] = true
    gone[#gone + 1] = task
    if fields[TOKEN] ~= '' then
      local tenant = fields[TENANT]
      ended[tenant] = (ended[tenant] or 0) - 1
      held[#held + 1] = task
      result[#result + 1] = fields[TOKEN]
    else
      take_out(task, fields, ended)
    end
  end
end
result[1] = #gone
many('ZREM', leases, held)
many('HDEL', body, gone)
many('HDEL', state, gone)
if call('EXISTS', deadlines) == 1 then
  many('ZREM', deadlines, gone)
end
if call('EXISTS', progress) == 1 then
  many('HDEL', progress, gone)
end
count_running(ended)
if unpark(ended) then
  call('PUBLISH', ARGV[1], ARGV[2])
end
return result
