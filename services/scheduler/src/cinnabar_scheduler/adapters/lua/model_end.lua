-- End one call of a model (see ModelCallStore.end).
--
-- ARGV  1 now_us  2 token  3 provider  4 how (see model_calls.How)  5 tokens  6 cost  7 result or ''
--       8 us for which a throttled provider wants to be left alone
--       9 failures that open the breaker  10 recovery_us  11 shared_us  12 bytes of all shared results
-- RETURNS  state of the breaker
local token, name, how = ARGV[2], ARGV[3], tonumber(ARGV[4])
local tokens, cost, result = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local known = call('HGET', calls, token)
local provider = provider_named(name)
if not known then return state_of(provider) end

local ended = unpacked(known)
local probe = provider[PROBE] == token
local answered = how == SUCCESS or how == USELESS
release(token, ended, provider, how, answered, tokens, cost)
if how == THROTTLED then
  provider[PAUSE] = math.max(provider[PAUSE], now + tonumber(ARGV[8]))
end
if how == FAILURE and (probe or provider[UNTIL] == 0) then
  provider[FAILURES] = provider[FAILURES] + 1
  if probe or provider[FAILURES] >= tonumber(ARGV[9]) then
    provider[UNTIL] = now + tonumber(ARGV[10])
  end
elseif (probe and (answered or how == THROTTLED)) or (answered and provider[UNTIL] == 0) then
  provider[UNTIL], provider[FAILURES] = 0, 0
end
keep_provider(name, provider)

if how == SUCCESS and result ~= '' and ended[C_SHARE] ~= '' then
  local share, shared_us = ended[C_SHARE], tonumber(ARGV[11])
  local shared_ms = math.ceil(shared_us / 1000)
  local total = tonumber(call('GET', share_bytes) or '0')
  local function forget(members)
    for _, member in ipairs(members) do
      local bytes, of = string.match(member, '^(%d+):(.*)$')
      total = total - tonumber(bytes)
      call('ZREM', shares, member)
      call('DEL', prefix .. 'share:' .. of)
    end
  end
  local before = call('GET', prefix .. 'share:' .. share)
  if before then forget({#unpacked(before)[2] .. ':' .. share}) end
  forget(call('ZRANGEBYSCORE', shares, '-inf', whole(now - shared_us), 'LIMIT', 0, REAPED))
  call('SET', prefix .. 'share:' .. share, pack({now + shared_us, result}), 'PX', shared_ms)
  call('ZADD', shares, whole(now), #result .. ':' .. share)
  total = total + #result
  while total > tonumber(ARGV[12]) do
    forget(call('ZRANGE', shares, 0, 0))
  end
  call('SET', share_bytes, whole(total), 'PX', shared_ms)
  call('PEXPIRE', shares, shared_ms)
end
return state_of(provider)
