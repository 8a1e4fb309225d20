-- Put tasks into a queue, each at most once per generation.
--
-- ARGV  1 now_ms  2 wake channel  3 queue name
--       then seven per task: task, tenant, generation, head_start_ms, ready_ms, grade_by_ms (0: none), body
-- RETURNS  {1 if the partition carries a mark of its epoch, positions (from 0) of the tasks that were there already}
local now = tonumber(ARGV[1])
local names, at = {}, {}
for i = 4, #ARGV, 7 do
  names[#names + 1] = ARGV[i]
end
local known = fetch(state, names)
local bodies, states, dues, limits, lines, ended, there = {}, {}, {}, {}, {}, {}, {}
for n, task in ipairs(names) do
  local i = 4 + (n - 1) * 7
  local tenant, generation = ARGV[i + 1], tonumber(ARGV[i + 2])
  local head_start, ready_at, grade_by = tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5])
  -- A task that comes twice in one call: the first is written before the second is looked at.
  local old = known[n]
  if at[task] then
    old = pack(at[task])
  end
  local fields = old and unpack_state(old)
  if fields and fields[GENERATION] >= generation then
    there[#there + 1] = n - 1
  else
    if fields then
      if at[task] then
        for _, batch in ipairs({lines[line_of(fields)] or {}, dues, limits}) do
          for k = #batch, 2, -2 do
            if batch[k] == task then
              table.remove(batch, k)
              table.remove(batch, k - 1)
            end
          end
        end
      end
      take_out(task, fields, ended)
      call('ZREM', deadlines, task)
    end
    local due = ready_at > now and ready_at or 0
    fields = {generation, tenant, head_start, 0, 0, '', ready_at, 0, 0, grade_by, due}
    at[task] = fields
    bodies[#bodies + 1], bodies[#bodies + 2] = task, ARGV[i + 6]
    states[#states + 1], states[#states + 2] = task, pack(fields)
    if due > 0 then
      dues[#dues + 1], dues[#dues + 2] = due, task
    else
      local line = line_of(fields)
      local batch = lines[line]
      if not batch then
        batch = {tenant = tenant}
        lines[line] = batch
      end
      batch[#batch + 1], batch[#batch + 2] = score_of(fields), task
    end
    if grade_by > 0 then
      limits[#limits + 1], limits[#limits + 2] = grade_by, task
    end
  end
end
if #states > 0 then
  many('HSET', body, bodies)
  many('HSET', state, states)
  many('ZADD', delayed, dues)
  many('ZADD', deadlines, limits)
  count_running(ended)
  unpark(ended)
  for line, batch in pairs(lines) do
    if #batch > 0 then
      many('ZADD', line, batch)
      arrived(line, batch.tenant)
    end
  end
  call('PUBLISH', ARGV[2], ARGV[3])
end
return {call('EXISTS', prefix .. 'epoch'), unpack(there)}
