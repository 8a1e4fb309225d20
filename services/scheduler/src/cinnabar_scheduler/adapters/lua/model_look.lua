-- Look at providers, or at what one tenant spent, or at what is to be written down.
--
-- ARGV  1 now_us  2 'providers' | 'budgets' | 'changes'  3 tenant, or how many changes at most
-- RETURNS  providers: five each: name, state, failures, unix ms at which a probe may go (0: closed), calls under way
--          budgets: nothing when nothing is known of the tenant, else 1 and then six each:
--                   scope, span, tokens, cost, tokens reserved, cost reserved
--          changes: six each: tenant, scope, mark, span, tokens, cost
local found = {}
local function add(...)
  for _, value in ipairs({...}) do
    found[#found + 1] = value
  end
end
if ARGV[2] == 'providers' then
  local known = call('HGETALL', providers)
  for i = 1, #known, 2 do
    local one = unpacked(known[i + 1])
    add(known[i], state_of(one), one[FAILURES], math.floor(one[UNTIL] / 1000), one[CALLS])
  end
elseif ARGV[2] == 'budgets' then
  local known = call('HGETALL', budgets_of(ARGV[3]))
  if #known > 0 then add(1) end
  for i = 1, #known, 2 do
    if known[i + 1] ~= '' then
      add(string.sub(known[i], 4), unpack(unpacked(known[i + 1])))
    end
  end
else
  local due = call('ZRANGE', changed, 0, tonumber(ARGV[3]) - 1, 'WITHSCORES')
  for i = 1, #due, 2 do
    local tenant, scope = string.match(due[i], '^(%S+) (.*)$')
    if call('HEXISTS', budgets_of(tenant), 'of:' .. scope) == 1 then
      local purse = purse_of(tenant, scope, '')
      add(tenant, scope, tonumber(due[i + 1]), purse[SPAN], purse[SPENT], purse[COST])
    else
      call('ZREM', changed, due[i])
    end
  end
end
return found
