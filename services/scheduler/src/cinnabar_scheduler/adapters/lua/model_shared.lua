-- What all scripts of model calls share; comes before each of them.
--
-- KEYS  1 the prefix, cinnabar:{model-calls}:  (its tag routes the call)
-- ARGV  1 now_us
--
-- Keys under the prefix, all in one slot: a decision needs the provider, which all tenants share, and the budgets
-- of one of them. Each has a TTL that a touch renews.
--   providers       HASH   provider -> cmsgpack of the first list of fields below
--   permits         ZSET   token -> unix us at which it ends by itself
--   calls           HASH   token -> cmsgpack of the second list; every permit has one
--   flights         HASH   <tenant>:<share key> -> token of the call that is under way for it
--   budgets:<t>     HASH   'of:' and scope -> cmsgpack of the third list; 'known' -> '' once what tenant t spent is known
--   changed         ZSET   "<tenant> <scope>" -> number of changes since it was written down
--   share:<t>:<k>   STRING cmsgpack {until (unix us), result}
--   shares          ZSET   "<bytes>:<t>:<k>" -> unix us of the result
--   share-bytes     STRING bytes of all results together
local FAILURES, UNTIL, PROBE, PAUSE, REQUESTS, REQUESTS_AT, TOKENS, TOKENS_AT, CALLS = 1, 2, 3, 4, 5, 6, 7, 8, 9
local C_PROVIDER, C_TENANT, C_TOKENS, C_COST, C_SHARE, C_CHARGED, C_SCOPES = 1, 2, 3, 4, 5, 6, 7
local SPAN, SPENT, COST, TOKENS_RESERVED, COST_RESERVED = 1, 2, 3, 4, 5
local SUCCESS, FAILURE, USELESS, THROTTLED, NOT_MADE = 1, 2, 3, 4, 5
local CLOSED, OPEN, HALF_OPEN = 1, 2, 3
local IDLE_MS = 30 * 86400000
local REAPED = 1000
local call, pack, unpacked = redis.call, cmsgpack.pack, cmsgpack.unpack

local prefix, now = KEYS[1], tonumber(ARGV[1])
local providers, permits, calls = prefix .. 'providers', prefix .. 'permits', prefix .. 'calls'
local flights, changed = prefix .. 'flights', prefix .. 'changed'
local shares, share_bytes = prefix .. 'shares', prefix .. 'share-bytes'

-- Whole numbers beyond 10^14 must not turn into 1e+14.
local function whole(number)
  return string.format('%.0f', number)
end

local function budgets_of(tenant)
  return prefix .. 'budgets:' .. tenant
end

local function touch(...)
  for _, key in ipairs({...}) do
    call('PEXPIRE', key, IDLE_MS)
  end
end

local function provider_named(name)
  local known = call('HGET', providers, name)
  return known and unpacked(known) or {0, 0, '', 0, 0, 0, 0, 0, 0}
end

local function keep_provider(name, provider)
  call('HSET', providers, name, pack(provider))
  touch(providers)
end

local function state_of(provider)
  if provider[UNTIL] == 0 then return CLOSED end
  return provider[PROBE] ~= '' and HALF_OPEN or OPEN
end

local function purse_of(tenant, scope, span)
  local known = call('HGET', budgets_of(tenant), 'of:' .. scope)
  return known and unpacked(known) or {span, 0, 0, 0, 0}
end

local function keep_purse(tenant, scope, purse)
  call('HSET', budgets_of(tenant), 'of:' .. scope, pack(purse))
  touch(budgets_of(tenant))
end

-- Takes a call off the books; charge: with what it used.
local function release(token, ended, provider, how, charge, tokens, cost)
  call('ZREM', permits, token)
  call('HDEL', calls, token)
  provider[CALLS] = math.max(0, provider[CALLS] - 1)
  if provider[PROBE] == token then provider[PROBE] = '' end
  if ended[C_SHARE] ~= '' and call('HGET', flights, ended[C_SHARE]) == token then
    call('HDEL', flights, ended[C_SHARE])
  end
  if ended[C_CHARGED] > 0 and (charge or how == NOT_MADE) then
    local unused = ended[C_CHARGED] - (charge and tokens or 0)
    provider[TOKENS] = math.max(0, provider[TOKENS] - unused)
  end
  local tenant = ended[C_TENANT]
  if call('HEXISTS', budgets_of(tenant), 'known') == 1 then
    for i = C_SCOPES, #ended do
      local scope = ended[i]
      local purse = purse_of(tenant, scope, '')
      purse[TOKENS_RESERVED] = math.max(0, purse[TOKENS_RESERVED] - ended[C_TOKENS])
      purse[COST_RESERVED] = math.max(0, purse[COST_RESERVED] - ended[C_COST])
      if charge and (tokens > 0 or cost > 0) then
        purse[SPENT], purse[COST] = purse[SPENT] + tokens, purse[COST] + cost
        call('ZINCRBY', changed, 1, tenant .. ' ' .. scope)
        touch(changed)
      end
      keep_purse(tenant, scope, purse)
    end
  end
end

-- Ends what nobody ended in time.
for _, token in ipairs(call('ZRANGEBYSCORE', permits, '-inf', whole(now), 'LIMIT', 0, REAPED)) do
  local known = call('HGET', calls, token)
  if known then
    local ended = unpacked(known)
    local provider = provider_named(ended[C_PROVIDER])
    release(token, ended, provider, FAILURE, false, 0, 0)
    keep_provider(ended[C_PROVIDER], provider)
  else
    call('ZREM', permits, token)
  end
end

