-- Lease the next tasks: tenants by stride, within a tenant by ready time - head start.
--
-- ARGV  1 now_us  2 lease_ms  3 limit  4 free credits  5 nonce of this call
--       6 most bytes of bodies, after the first one
-- RETURNS  {due of the next delayed task (0: there is more at once), -1 (none is delayed) or
--           -2 (nothing was done: the partition does not know the tenants' policies),
--           then per lease: task, token, generation, delivery, tenant, grade_by_ms (0: none), body}
--
-- Cost: two calls to the store per tenant served, three or four per batch of
-- tasks, whatever waits behind them.
local now_us, lease_ms, free = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local limit, max_bytes = math.min(tonumber(ARGV[3]), free), tonumber(ARGV[6])
local now = math.floor(now_us / 1000)
if call('GET', prefix .. 'control') == 'paused' then
  return {-1}
end
local default = call('HGET', tenants, '')
if not default then
  return {-2}
end

local due = call('ZRANGE', delayed, '-inf', now, 'BYSCORE', 'LIMIT', 0, 1000)
if #due > 0 then
  local states, lines = {}, {}
  for n, packed in ipairs(fetch(state, due)) do
    local fields = unpack_state(packed)
    fields[DUE] = 0
    states[#states + 1], states[#states + 2] = due[n], pack(fields)
    local line = line_of(fields)
    lines[line] = lines[line] or {tenant = fields[TENANT]}
    local batch = lines[line]
    batch[#batch + 1], batch[#batch + 2] = score_of(fields), due[n]
  end
  many('HSET', state, states)
  many('ZREM', delayed, due)
  for line, batch in pairs(lines) do
    many('ZADD', line, batch)
    arrived(line, batch.tenant)
  end
end

local floor = tonumber(call('GET', floor_key) or '0')
local default_weight, default_cap = parse_policy(default)
local named = call('HLEN', tenants) > 1
local regrades = call('EXISTS', regrade_turns) == 1
-- The last free credit is not spent on a regrade: so many picks may be one.
local mixed = regrades and math.max(math.min(limit, free - 1), 0) or limit

-- The tenants first in turn, and those met at a cap that was lowered meanwhile.
local by_name, present, at_cap = {}, {}, {}

-- Names are compared by their bytes: strings of Lua follow the server's locale.
local function key_of(name)
  local key = 0
  for i = 1, 6 do
    key = key * 256 + (string.byte(name, i) or 0)
  end
  return key
end

local function before(one, other)
  if one.pass ~= other.pass then
    return one.pass < other.pass
  end
  if one.key ~= other.key then
    return one.key < other.key
  end
  local a, b = one.name, other.name
  for i = 7, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

local function look(order)
  local from, usable = 0, 0
  while usable < limit do
    local page = call('ZRANGE', order, from, from + limit - 1, 'WITHSCORES')
    local names = {}
    for i = 1, #page, 2 do
      names[#names + 1] = page[i]
    end
    local policies = named and fetch(tenants, names) or {}
    local counts = fetch(running, names)
    for i, name in ipairs(names) do
      local tenant = by_name[name]
      if not tenant then
        local weight, cap = default_weight, default_cap
        if policies[i] then
          weight, cap = parse_policy(policies[i])
        end
        local count = tonumber(counts[i] or '0')
        tenant = {
          name = name, key = key_of(name), pass = tonumber(page[2 * i]), stride = math.floor(STRIDE / weight),
          count = count, room = cap > 0 and cap - count or math.huge, taken = 0, tasks = {},
          waiting = call('ZCARD', ready .. name), again = regrades and call('ZCARD', regrade .. name) or 0,
        }
        by_name[name] = tenant
        if tenant.room > 0 then
          present[#present + 1] = tenant
        else
          at_cap[#at_cap + 1] = tenant
        end
      end
      if tenant.room > 0 then
        usable = usable + 1
      end
    end
    from = from + limit
    if #names < limit then
      break
    end
  end
end

local picks, starts = {}, {}

local function serve(tenant)
  local start = math.max(tenant.pass, floor)
  tenant.first = tenant.first or tenant.pass
  tenant.taken = tenant.taken + 1
  tenant.pass = start + tenant.stride
  picks[#picks + 1] = tenant
  starts[#starts + 1] = start
end

-- `heap` holds those that were served and have more, least pass first.
local function push(heap, tenant)
  local n = #heap + 1
  while n > 1 do
    local parent = math.floor(n / 2)
    if before(heap[parent], tenant) then
      break
    end
    heap[n] = heap[parent]
    n = parent
  end
  heap[n] = tenant
end

local function pop(heap)
  local size = #heap
  local tenant = heap[size]
  heap[size] = nil
  size = size - 1
  if size == 0 then
    return
  end
  local n = 1
  while true do
    local child = 2 * n
    if child > size then
      break
    end
    if child < size and before(heap[child + 1], heap[child]) then
      child = child + 1
    end
    if before(tenant, heap[child]) then
      break
    end
    heap[n] = heap[child]
    n = child
  end
  heap[n] = tenant
end

-- Deal `count` turns out, by numbers alone: what the tenants have is popped afterwards.
local function deal(count)
  local heap, fresh = {}, 1
  while #picks < count do
    local tenant, top = present[fresh], heap[1]
    if not tenant and not top then
      break
    elseif tenant and (not top or before(tenant, top)) then
      fresh = fresh + 1
    else
      tenant = top
      pop(heap)
    end
    local more = math.min(tenant.waiting + tenant.again, tenant.room) - tenant.taken
    serve(tenant)
    more = more - 1
    if not present[fresh] and #heap == 0 then
      while more > 0 and #picks < count do  -- nobody else has work
        serve(tenant)
        more = more - 1
      end
    end
    if more > 0 then
      push(heap, tenant)
    end
  end
end

local function pop_line(line, count, tasks)
  if count > 0 then
    local popped = call('ZPOPMIN', line, count)
    for i = 1, #popped, 2 do
      tasks[#tasks + 1] = popped[i]
    end
  end
end

-- Pop what was dealt: of a tenant with regrades too, what has the smaller score.
local function collect()
  for _, tenant in ipairs(present) do
    local count = tenant.taken
    if count > 0 then
      if tenant.again == 0 then
        pop_line(ready .. tenant.name, count, tenant.tasks)
        tenant.waiting = tenant.waiting - count
      elseif tenant.waiting == 0 then
        pop_line(regrade .. tenant.name, count, tenant.tasks)
        tenant.again = tenant.again - count
      else
        local first = call('ZRANGE', ready .. tenant.name, 0, count - 1, 'WITHSCORES')
        local second = call('ZRANGE', regrade .. tenant.name, 0, count - 1, 'WITHSCORES')
        local a, b = 1, 1
        for _ = 1, count do
          local x, y = tonumber(first[a + 1]), tonumber(second[b + 1])
          local takes_first = x and (not y or x < y)
          if x and y and x == y then
            takes_first = before({pass = 0, key = key_of(first[a]), name = first[a]},
              {pass = 0, key = key_of(second[b]), name = second[b]})
          end
          if takes_first then
            tenant.tasks[#tenant.tasks + 1] = first[a]
            a = a + 2
          else
            tenant.tasks[#tenant.tasks + 1] = second[b]
            b = b + 2
          end
        end
        local firsts, seconds = (a - 1) / 2, (b - 1) / 2
        pop_line(ready .. tenant.name, firsts, {})
        pop_line(regrade .. tenant.name, seconds, {})
        tenant.waiting, tenant.again = tenant.waiting - firsts, tenant.again - seconds
      end
    end
  end
end

look(turns)
if regrades and mixed > 0 then
  look(regrade_turns)
  table.sort(present, before)
end
if mixed > 0 then
  deal(mixed)
end
collect()
if mixed < limit then
  local tenant = nil
  for _, one in ipairs(present) do
    if one.waiting > 0 and one.taken < one.room and (not tenant or before(one, tenant)) then
      tenant = one
    end
  end
  if tenant then
    serve(tenant)
    pop_line(ready .. tenant.name, 1, tenant.tasks)
    tenant.waiting = tenant.waiting - 1
  end
end

-- The tasks in the order of the turns, as far as their bodies may go out together.
local names, at = {}, {}
for n, tenant in ipairs(picks) do
  at[tenant] = (at[tenant] or 0) + 1
  names[n] = tenant.tasks[at[tenant]]
end
local packed = fetch(state, names)
local result = {-1}
local bytes, served = 0, #picks
local bodies = {}
for from = 1, #names, 64 do
  local to = math.min(from + 63, #names)
  for i, payload in ipairs(call('HMGET', body, unpack(names, from, to))) do
    bytes = bytes + #payload
    if bytes > max_bytes and from + i > 2 then
      served = from + i - 2
      break
    end
    bodies[from + i - 1] = payload
  end
  if served < #picks then
    break
  end
end
if served > 0 then
  local fence = new_fences(served, now_us)
  local states, expiries = {}, {}
  local expiry = whole(now + lease_ms)
  local nonce = '-' .. ARGV[5]
  local r = 1
  for n = 1, served do
    local task = names[n]
    local fields = unpack_state(packed[n])
    local token = whole(fence) .. nonce
    fence = fence + 1
    fields[TOKEN], fields[DELIVERIES] = token, fields[DELIVERIES] + 1
    states[2 * n - 1], states[2 * n] = task, pack(fields)
    expiries[2 * n - 1], expiries[2 * n] = expiry, task
    result[r + 1], result[r + 2], result[r + 3], result[r + 4] = task, token, fields[GENERATION], fields[DELIVERIES]
    result[r + 5], result[r + 6], result[r + 7] = fields[TENANT], fields[GRADE_BY], bodies[n]
    r = r + 7
  end
  many('HSET', state, states)
  many('ZADD', leases, expiries)
end
for n = served + 1, #picks do
  local tenant, fields = picks[n], unpack_state(packed[n])
  call('ZADD', line_of(fields), score_of(fields), names[n])
  tenant.taken = tenant.taken - 1
  tenant.pass = tenant.taken > 0 and tenant.pass - tenant.stride or tenant.first
  if fields[HEAD_START] == 0 then
    tenant.again = tenant.again + 1
  else
    tenant.waiting = tenant.waiting + 1
  end
end

local new_floor = math.max(floor, starts[served] or 0)
local orders, again_orders, out, again_out, parks, gone, counts = {}, {}, {}, {}, {}, {}, {}
local function place(tenant)
  local name, shown = tenant.name, whole(tenant.pass)
  local parks_now = tenant.taken >= tenant.room
  if tenant.waiting > 0 and not parks_now then
    orders[#orders + 1], orders[#orders + 2] = shown, name
  else
    out[#out + 1] = name
  end
  if regrades and tenant.again > 0 and not parks_now then
    again_orders[#again_orders + 1], again_orders[#again_orders + 2] = shown, name
  else
    again_out[#again_out + 1] = name
  end
  if tenant.waiting + tenant.again == 0 then
    if tenant.pass > new_floor then
      gone[#gone + 1], gone[#gone + 2] = shown, name
    end
  elseif parks_now then
    parks[#parks + 1], parks[#parks + 2] = shown, name
  end
end
for _, tenant in ipairs(present) do
  if tenant.taken > 0 then
    place(tenant)
    counts[#counts + 1], counts[#counts + 2] = tenant.name, tenant.count + tenant.taken
  end
end
for _, tenant in ipairs(at_cap) do
  place(tenant)
end
many('HSET', running, counts)
many('ZADD', turns, orders)
many('ZREM', turns, out)
if regrades then
  many('ZADD', regrade_turns, again_orders)
  many('ZREM', regrade_turns, again_out)
end
many('ZADD', parked, parks)
many('ZADD', left, gone)
if call('EXISTS', turns, regrade_turns, parked) == 0 then
  call('DEL', floor_key, left)  -- nobody is there to be compared with
elseif served > 0 then
  call('SET', floor_key, whole(new_floor))
  call('ZREMRANGEBYSCORE', left, '-inf', whole(new_floor))
end

if served < #picks then
  result[1] = 0
else
  local next_due = call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
  result[1] = next_due[2] and tonumber(next_due[2]) or -1
end
return result
