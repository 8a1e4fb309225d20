-- How far tasks are, as told under the leases that they are under now.
--
-- ARGV  task, generation pairs
-- RETURNS  a payload per task, '' where nothing is known
local names, result = {}, {}
for i = 1, #ARGV, 2 do
  names[#names + 1] = ARGV[i]
end
local told, states = fetch(progress, names), fetch(state, names)
for n = 1, #names do
  result[n] = ''
  if told[n] and states[n] then
    local fields = unpack_state(states[n])
    local space = string.find(told[n], '\n', 1, true)
    if fields[TOKEN] == string.sub(told[n], 1, space - 1) and fields[GENERATION] == tonumber(ARGV[2 * n]) then
      result[n] = string.sub(told[n], space + 1)
    end
  end
end
return result
