-- Decide on one call of a model (see ModelCallStore.begin for the order).
--
-- ARGV  1 now_us  2 token  3 provider  4 concurrency  5 requests, 6 tokens of a minute (0: no limit)
--       7 tenant  8 tokens  9 cost  10 share key or ''  11 expires_us  12 minute_us
--       then four per purse: scope, tokens, cost (0: no limit), span
-- RETURNS  {0}                            nothing is known of the tenant's budgets
--          {1, 1 if it is the probe}      permit
--          {2, result}                    shared
--          {3, reason, wait_us}           wait; 0: ask again as usual
--          {4, 1, wait_us}                denied: breaker; 0: a probe is under way
--          {4, 2, index of the purse from 0, spent tokens, spent cost}  denied: budget
local UNKNOWN, PERMIT, SHARED, WAIT, DENIED = 0, 1, 2, 3, 4
local IN_FLIGHT, CONCURRENCY, RATE = 1, 2, 3
local BREAKER_OPEN, BUDGET_EXHAUSTED = 1, 2
local EPSILON_UNITS = 1e-6
local token, name = ARGV[2], ARGV[3]
local concurrency, requests, rate_tokens = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local tenant, tokens, cost = ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local share = ARGV[10] ~= '' and tenant .. ':' .. ARGV[10] or ''
local expires, minute = tonumber(ARGV[11]), tonumber(ARGV[12])

if share ~= '' then
  local known = call('GET', prefix .. 'share:' .. share)
  local fields = known and unpacked(known)
  if fields and fields[1] > now then return {SHARED, fields[2]} end
end

if call('HEXISTS', providers, name) == 0 then keep_provider(name, provider_named(name)) end
local provider = provider_named(name)
if provider[PROBE] ~= '' then return {DENIED, BREAKER_OPEN, 0} end
if now < provider[UNTIL] then return {DENIED, BREAKER_OPEN, provider[UNTIL] - now} end

if call('HEXISTS', budgets_of(tenant), 'known') == 0 then return {UNKNOWN} end
local scopes, purses = {}, {}
for a = 13, #ARGV, 4 do
  local scope, most, most_cost, span = ARGV[a], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), ARGV[a + 3]
  local purse = purse_of(tenant, scope, span)
  if purse[SPAN] ~= span then
    purse[SPAN], purse[SPENT], purse[COST] = span, 0, 0
  end
  if (most > 0 and purse[SPENT] + purse[TOKENS_RESERVED] + tokens > most)
      or (most_cost > 0 and purse[COST] + purse[COST_RESERVED] + cost > most_cost) then
    return {DENIED, BUDGET_EXHAUSTED, #scopes, purse[SPENT], purse[COST]}
  end
  scopes[#scopes + 1], purses[#purses + 1] = scope, purse
end

if share ~= '' and call('HEXISTS', flights, share) == 1 then return {WAIT, IN_FLIGHT, 0} end

-- The arithmetic of limits.py. A call that is larger than a whole minute's tokens waits for all of them.
local charged = math.min(tokens, rate_tokens)
local longest = math.max(0, provider[PAUSE] - now)
local function rate(used, at, units, wanted)
  if units == 0 then return end
  local left = math.max(0, math.min(provider[used], units) - math.max(0, now - provider[at]) * units / minute)
  local over = left + wanted - units
  if over > EPSILON_UNITS then longest = math.max(longest, math.ceil(over * minute / units)) end
  return left
end
local used_requests = rate(REQUESTS, REQUESTS_AT, requests, 1)
local used_tokens = rate(TOKENS, TOKENS_AT, rate_tokens, charged)
if longest > 0 then return {WAIT, RATE, longest} end
if concurrency > 0 and provider[CALLS] >= concurrency then return {WAIT, CONCURRENCY, 0} end

if used_requests then
  provider[REQUESTS], provider[REQUESTS_AT] = used_requests + 1, math.max(now, provider[REQUESTS_AT])
end
if used_tokens then
  provider[TOKENS], provider[TOKENS_AT] = used_tokens + charged, math.max(now, provider[TOKENS_AT])
end
provider[CALLS] = provider[CALLS] + 1
local probe = provider[UNTIL] > 0
if probe then provider[PROBE] = token end
keep_provider(name, provider)
for i, scope in ipairs(scopes) do
  local purse = purses[i]
  purse[TOKENS_RESERVED] = purse[TOKENS_RESERVED] + tokens
  purse[COST_RESERVED] = purse[COST_RESERVED] + cost
  keep_purse(tenant, scope, purse)
end
if share ~= '' then
  call('HSET', flights, share, token)
  touch(flights)
end
call('ZADD', permits, whole(expires), token)
call('HSET', calls, token, pack({name, tenant, tokens, cost, share, charged, unpack(scopes)}))
touch(permits, calls)
return {PERMIT, probe and 1 or 0}
