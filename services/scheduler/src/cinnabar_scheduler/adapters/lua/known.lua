-- Walk over all tasks.
--
-- ARGV  1 cursor  2 about how many
-- RETURNS  {next cursor ('0': the end), then per task: task, tenant, generation}
local page = call('HSCAN', state, ARGV[1], 'COUNT', ARGV[2])
local result = {page[1]}
for i = 1, #page[2], 2 do
  local fields, r = unpack_state(page[2][i + 1]), #result
  result[r + 1], result[r + 2], result[r + 3] = page[2][i], fields[TENANT], fields[GENERATION]
end
return result
