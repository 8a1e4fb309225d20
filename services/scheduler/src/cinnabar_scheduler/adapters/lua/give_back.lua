-- Take leased tasks back: handed back, failed by the grader, or lost with a worker.
--
-- ARGV  1 now_ms  2 wake channel  3 queue name  4 head_start_ms of work that waited already  5 max_faults
--       6 attempts  7 base_ms  8 cap_ms of failures  9 attempts  10 base_ms  11 cap_ms of absences
--       then four per task: task, token, why (see tasks.Why), jitter in [0, 1)
-- RETURNS  per task, in order: -1 the token holds no lease, 0 queued again,
--          n > 0 its deliveries: given up, still under its lease until the dead letter is committed
local now, head_start, max_faults = tonumber(ARGV[1]), tonumber(ARGV[4]), tonumber(ARGV[5])
local max_failed, max_unavailable = tonumber(ARGV[6]), tonumber(ARGV[9])

-- Exponential backoff with full jitter: uniform in [0, min(cap, base * 2^(attempt-1))).
local function backoff(attempt, first, jitter)
  return math.floor(jitter * math.min(tonumber(ARGV[first + 1]), tonumber(ARGV[first]) * 2 ^ (attempt - 1)))
end

local verdicts, ended, touched = {}, {}, {}
local woken = false
for i = 12, #ARGV, 4 do
  local task, token, why, jitter = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local known = call('HGET', state, task)
  local fields = known and unpack_state(known)
  local verdict = 0
  if not fields or fields[TOKEN] ~= token then
    verdict = -1
  else
    local delay = 0
    if why == 'returned' then
      fields[DELIVERIES] = fields[DELIVERIES] - 1
    elseif why == 'failed' then
      fields[FAILED] = fields[FAILED] + 1
      delay = backoff(fields[FAILED], 7, jitter)
    elseif why == 'unavailable' then
      fields[UNAVAILABLE] = fields[UNAVAILABLE] + 1
      delay = backoff(fields[UNAVAILABLE], 10, jitter)
    elseif why == 'permanent' then
      fields[FAILED] = math.max(fields[FAILED], max_failed)
    else
      fields[FAULTS] = fields[FAULTS] + 1
    end
    if
      fields[FAILED] >= max_failed or fields[UNAVAILABLE] >= max_unavailable or fields[FAULTS] >= max_faults
    then
      verdict = math.max(fields[DELIVERIES], 1)
    else
      local tenant = fields[TENANT]
      fields[TOKEN] = ''
      if why ~= 'returned' then
        fields[HEAD_START] = math.max(fields[HEAD_START], head_start)
      end
      call('ZREM', leases, task)
      ended[tenant] = (ended[tenant] or 0) - 1
      if delay > 0 then
        fields[DUE] = now + delay
        call('ZADD', delayed, now + delay, task)
      else
        call('ZADD', line_of(fields), score_of(fields), task)
        touched[tenant] = line_of(fields)
      end
      woken = true
    end
    call('HSET', state, task, pack(fields))
  end
  verdicts[#verdicts + 1] = verdict
end
count_running(ended)
unpark(ended)
for tenant, line in pairs(touched) do
  settle(tenant)
end
if woken then
  call('PUBLISH', ARGV[2], ARGV[3])
end
return verdicts
