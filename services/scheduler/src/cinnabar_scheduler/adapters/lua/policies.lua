-- Put other policies of tenants in force.
--
-- ARGV  1 wake channel  2 queue name, then tenant, "weight cap" pairs; the tenant '' stands for all others
-- RETURNS  tenants that are no longer at their cap
--
-- Of a cap that was lowered the next lease takes notice.
call('DEL', tenants)
many('HSET', tenants, {unpack(ARGV, 3)})
local freed = 0
for _, tenant in ipairs(call('ZRANGE', parked, 0, -1)) do
  if room_of(tenant) > 0 then
    settle(tenant)
    freed = freed + 1
  end
end
if freed > 0 then
  call('PUBLISH', ARGV[1], ARGV[2])
end
return freed
