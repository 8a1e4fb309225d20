-- What all scripts of a queue partition share; comes before each of them.
--
-- KEYS  1 the partition's prefix, cinnabar:{<queue>:<index>/<count>}:  (its tag routes the call)
--
-- Keys under the prefix; the scripts name them themselves, they are all in one slot:
--   turns          ZSET  tenant -> pass, below its cap and with ready work other than regrades
--   regrade-turns  ZSET  tenant -> pass, below its cap and with ready regrades (the same pass)
--   parked         ZSET  tenant -> pass, at its cap and with ready work
--   left           ZSET  tenant -> pass beyond the floor, without ready work
--   floor          STRING pass at which the last task was served: where tenants come in
--   ready:<t>      ZSET  task -> ready time - head start (ms), of tenant t
--   regrade:<t>    ZSET  the same for regrades
--   delayed        ZSET  task -> due (unix ms)
--   leases         ZSET  task -> lease expiry (unix ms)
--   deadlines      ZSET  task -> unix ms by which it must be graded, of those that have one
--   running        HASH  tenant -> tasks under lease
--   tenants        HASH  tenant -> "weight cap" (0: none); "" -> that of all others
--   body           HASH  task -> what a worker needs (opaque)
--   state          HASH  task -> cmsgpack of the fields below; every task has one
--   progress       HASH   task -> token of its lease, a line end, how far it is (opaque); has a TTL
--   fence          STRING number of the last lease
--   control        STRING 'paused' | 'draining'
--   epoch          STRING mark of the last rebuild, see mark.lua
local GENERATION, TENANT, HEAD_START, FAILED, FAULTS, TOKEN = 1, 2, 3, 4, 5, 6
local READY_AT, DELIVERIES, UNAVAILABLE, GRADE_BY, DUE = 7, 8, 9, 10, 11
local STRIDE = 1000000
local call, pack, unpack_state = redis.call, cmsgpack.pack, cmsgpack.unpack

local prefix = KEYS[1]
local turns, regrade_turns = prefix .. 'turns', prefix .. 'regrade-turns'
local parked, left, floor_key = prefix .. 'parked', prefix .. 'left', prefix .. 'floor'
local ready, regrade = prefix .. 'ready:', prefix .. 'regrade:'
local delayed, leases, deadlines = prefix .. 'delayed', prefix .. 'leases', prefix .. 'deadlines'
local running, tenants = prefix .. 'running', prefix .. 'tenants'
local body, state, fence_key = prefix .. 'body', prefix .. 'state', prefix .. 'fence'
local progress = prefix .. 'progress'

-- One command on many members. A thousand at a time: Lua's stack is bounded.
local function many(command, key, args)
  for from = 1, #args, 1000 do
    call(command, key, unpack(args, from, math.min(from + 999, #args)))
  end
end

local function fetch(key, fields)
  if #fields <= 1000 then
    return #fields > 0 and call('HMGET', key, unpack(fields)) or {}
  end
  local values = {}
  for from = 1, #fields, 1000 do
    for i, value in ipairs(call('HMGET', key, unpack(fields, from, math.min(from + 999, #fields)))) do
      values[from + i - 1] = value
    end
  end
  return values
end

-- Whole numbers beyond 10^14 must not turn into 1e+14.
local function whole(number)
  return string.format('%.0f', number)
end

local function line_of(fields)
  return (fields[HEAD_START] == 0 and regrade or ready) .. fields[TENANT]
end

local function score_of(fields)
  return fields[READY_AT] - fields[HEAD_START]
end

local function parse_policy(text)
  local space = string.find(text, ' ', 1, true)
  return tonumber(string.sub(text, 1, space - 1)), tonumber(string.sub(text, space + 1))
end

-- How many more tasks of a tenant may be under lease.
local function room_of(tenant)
  local found = call('HMGET', tenants, tenant, '')
  local policy = found[1] or found[2]
  if not policy then
    return math.huge
  end
  local _, cap = parse_policy(policy)
  if cap == 0 then
    return math.huge
  end
  return cap - tonumber(call('HGET', running, tenant) or '0')
end

-- Put a tenant where its work and its cap say: among those that take turns, parked, or left.
local function settle(tenant)
  local floor = tonumber(call('GET', floor_key) or '0')
  local pass = call('ZSCORE', turns, tenant) or call('ZSCORE', regrade_turns, tenant)
  if not pass then
    pass = call('ZSCORE', parked, tenant) or call('ZSCORE', left, tenant)
    pass = math.max(tonumber(pass or '0'), floor)
    call('ZREM', parked, tenant)
    call('ZREM', left, tenant)
  end
  local first, second = call('EXISTS', ready .. tenant) == 1, call('EXISTS', regrade .. tenant) == 1
  local waits = first or second
  local at_cap = waits and room_of(tenant) <= 0
  local shown = whole(tonumber(pass))
  if first and not at_cap then
    call('ZADD', turns, shown, tenant)
  else
    call('ZREM', turns, tenant)
  end
  if second and not at_cap then
    call('ZADD', regrade_turns, shown, tenant)
  else
    call('ZREM', regrade_turns, tenant)
  end
  if at_cap then
    call('ZADD', parked, shown, tenant)
  elseif not waits and tonumber(pass) > floor then
    call('ZADD', left, shown, tenant)
  end
end

-- Work was added for a tenant; that it takes turns already is the usual case.
local function arrived(line, tenant)
  local order = line == ready .. tenant and turns or regrade_turns
  if not call('ZSCORE', order, tenant) and not call('ZSCORE', parked, tenant) then
    settle(tenant)
  end
end

-- Leases of tenants began (positive) or ended (negative).
local function count_running(changes)
  local names, counts, none = {}, {}, {}
  for tenant in pairs(changes) do
    names[#names + 1] = tenant
  end
  for n, count in ipairs(fetch(running, names)) do
    local tenant = names[n]
    local now = tonumber(count or '0') + changes[tenant]
    if now > 0 then
      counts[#counts + 1], counts[#counts + 2] = tenant, now
    else
      none[#none + 1] = tenant
    end
  end
  many('HSET', running, counts)
  many('HDEL', running, none)
end

-- Tenants whose leases ended come back from where they were parked; returns whether any did.
local function unpark(changes)
  if call('EXISTS', parked) == 0 then
    return false
  end
  local any = false
  for tenant in pairs(changes) do
    if call('ZSCORE', parked, tenant) then
      settle(tenant)
      any = any or not call('ZSCORE', parked, tenant)
    end
  end
  return any
end

-- Take one task out of the place where it waits or is held. `ended` counts leases by tenant.
local function take_out(task, fields, ended)
  local tenant = fields[TENANT]
  if fields[TOKEN] ~= '' then
    call('ZREM', leases, task)
    ended[tenant] = (ended[tenant] or 0) - 1
  elseif fields[DUE] > 0 then
    call('ZREM', delayed, task)
  else
    call('ZREM', line_of(fields), task)
    settle(tenant)
  end
end

-- Number of the first of `count` new leases; `now_us` lets it rise over every loss of data.
local function new_fences(count, now_us)
  local last = math.max(tonumber(call('GET', fence_key) or '0'), now_us)
  call('SET', fence_key, whole(last + count))
  return last + 1
end
