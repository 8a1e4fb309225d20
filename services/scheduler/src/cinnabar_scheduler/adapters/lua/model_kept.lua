-- What was changed is written down, unless it changed again meanwhile.
--
-- ARGV  1 now_us, then three each: tenant, scope, mark
for a = 2, #ARGV, 3 do
  local member = ARGV[a] .. ' ' .. ARGV[a + 1]
  local mark = call('ZSCORE', changed, member)
  if mark and tonumber(mark) == tonumber(ARGV[a + 2]) then
    call('ZREM', changed, member)
  end
end
