-- Make known what a tenant has spent, as far as it is not known.
--
-- ARGV  1 now_us  2 tenant, then four each: scope, span, tokens, cost
local tenant = ARGV[2]
for a = 3, #ARGV, 4 do
  if call('HEXISTS', budgets_of(tenant), 'of:' .. ARGV[a]) == 0 then
    keep_purse(tenant, ARGV[a], {ARGV[a + 1], tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3]), 0, 0})
  end
end
call('HSET', budgets_of(tenant), 'known', '')
touch(budgets_of(tenant))
