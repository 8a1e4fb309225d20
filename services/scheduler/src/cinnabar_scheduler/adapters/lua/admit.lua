-- Admit requests of one tenant: keys first, then all limits of a request or none of them.
--
-- The limits are continuous-state leaky buckets (GCRA), in the arithmetic of limits.py. A request whose key has
-- an answer, is reserved, or was used with another fingerprint is charged nothing; neither is one that is refused.
--
-- KEYS  1…l      {limits:<tenant>}:<level>:<digest of who>  STRING  "<units used> <at (unix us)>"
--       l+1…     {limits:<tenant>}:key:<digest of user and key>  STRING
--                cmsgpack {fingerprint, until (unix us), reservation, answer}
-- ARGV  1 now_us  2 reservation_us  3 ask_again_us  4 l, then two per limit: units, period_us
--       then per request: cost, index of its key in KEYS (0: none), fingerprint, reservation to make,
--       number of its limits n, n indexes in KEYS
-- RETURNS  six per request: result (see admission.Result), answer, retry_after_us,
--          which of its limits is nearest to its end (from 1; 0: none), units remaining of it, us until all are back
local EPSILON_UNITS = 1e-6
local GRACE_MS = 60000
local now, reservation_us, ask_again_us = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local limits = tonumber(ARGV[4])
local ADMITTED, REPLAY, KEY_REUSED, IN_PROGRESS, LIMITED = 1, 2, 3, 4, 5

local used, at, units, period, charged = {}, {}, {}, {}, {}
for i = 1, limits do
  units[i], period[i] = tonumber(ARGV[3 + 2 * i]), tonumber(ARGV[4 + 2 * i])
  used[i], at[i] = 0, now
  local known = redis.call('GET', KEYS[i])
  if known then
    local before, moment = string.match(known, '^(%S+) (%S+)$')
    before, moment = tonumber(before), tonumber(moment)
    used[i] = math.max(0, math.min(before, units[i]) - math.max(0, now - moment) * units[i] / period[i])
    at[i] = math.max(moment, now)
  end
end

local function wait_us(i, cost)
  if cost <= 0 then return 0 end
  if cost > units[i] then return period[i] end
  local over = used[i] + cost - units[i]
  return over > EPSILON_UNITS and math.ceil(over * period[i] / units[i]) or 0
end

local results = {}
local a = 5 + 2 * limits
while a <= #ARGV do
  local cost, key, fingerprint = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), ARGV[a + 2]
  local own = tonumber(ARGV[a + 4])
  local result, answer, retry_us = ADMITTED, '', 0
  if key > 0 then
    local known = redis.call('GET', KEYS[key])
    local fields = known and cmsgpack.unpack(known)
    if fields and fields[2] > now then
      if fields[1] ~= fingerprint then
        result = KEY_REUSED
      elseif fields[3] == '' then
        result, answer = REPLAY, fields[4]
      else
        result, retry_us = IN_PROGRESS, math.min(ask_again_us, fields[2] - now)
      end
    end
  end
  local longest = 0
  if result == ADMITTED then
    for n = 1, own do
      longest = math.max(longest, wait_us(tonumber(ARGV[a + 4 + n]), cost))
    end
    if longest > 0 then
      result, retry_us = LIMITED, longest
    else
      for n = 1, own do
        local i = tonumber(ARGV[a + 4 + n])
        used[i] = used[i] + cost
        charged[i] = charged[i] or cost > 0
      end
      if key > 0 then
        local reserved = cmsgpack.pack({fingerprint, now + reservation_us, ARGV[a + 3], ''})
        redis.call('SET', KEYS[key], reserved, 'PX', math.ceil(reservation_us / 1000) + GRACE_MS)
      end
    end
  end
  local nearest, nearest_wait, nearest_left = 0, -1, 0
  for n = 1, own do
    local i = tonumber(ARGV[a + 4 + n])
    local wait = result == LIMITED and wait_us(i, cost) or 0
    local left = math.max(0, math.floor(units[i] - used[i] + EPSILON_UNITS))
    if wait > nearest_wait or (wait == nearest_wait and left <= nearest_left) then
      nearest, nearest_wait, nearest_left = n, wait, left
    end
  end
  local reset_us = 0
  if nearest > 0 then
    local i = tonumber(ARGV[a + 4 + nearest])
    reset_us = math.ceil(used[i] * period[i] / units[i])
  end
  local r = #results
  results[r + 1], results[r + 2], results[r + 3] = result, answer, retry_us
  results[r + 4], results[r + 5], results[r + 6] = nearest, nearest_left, reset_us
  a = a + 5 + own
end

for i = 1, limits do
  if charged[i] then
    local value = string.format('%.17g %.0f', used[i], at[i])
    redis.call('SET', KEYS[i], value, 'PX', math.ceil(period[i] / 1000) + GRACE_MS)
  end
end
return results
