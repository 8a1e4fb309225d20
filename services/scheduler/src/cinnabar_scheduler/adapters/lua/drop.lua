-- Remove a partition, a part at a time.
--
-- RETURNS  1 when there may be more, 0 when it is gone
local lines = {}
for _, order in ipairs({turns, regrade_turns, parked}) do
  local some = call('ZRANGE', order, 0, 999)
  for _, tenant in ipairs(some) do
    lines[#lines + 1], lines[#lines + 2] = ready .. tenant, regrade .. tenant
  end
  if #some > 0 then
    call('ZREM', order, unpack(some))
  end
end
if #lines > 0 then
  call('UNLINK', unpack(lines))
  return 1
end
call('UNLINK', delayed, leases, deadlines, running, tenants, body, state, fence_key, left, floor_key,
  prefix .. 'control', prefix .. 'epoch', progress)
return 0
