-- Take leased tasks back: handed back, failed by the grader, or lost with a worker.
--
-- KEYS  1 …:tenants  2 …:ready  3 …:delayed  4 …:leases  5 …:state  6 …:pass  (see enqueue.lua)
-- ARGV  1 now_ms  2 wake channel  3 queue name  4 backoff_base_ms  5 backoff_cap_ms
--       6 max_failures  7 max_faults  8 head_start_ms of work that waited already
--       then four per task: task, token, why ('returned' | 'failed' | 'fault'), jitter in [0, 1)
-- RETURNS  per task, in order: -1 the token holds no lease, 0 queued again,
--          n > 0 its deliveries: given up, still under its lease until the dead letter is committed
local tenants, ready, delayed, leases, state, pass_key = unpack(KEYS)
local now, base, cap = tonumber(ARGV[1]), tonumber(ARGV[4]), tonumber(ARGV[5])
local max_failures, max_faults, head_start = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local verdicts = {}
local woken = false
for i = 9, #ARGV, 4 do
  local task, token, why, jitter = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local known = redis.call('HGET', state, task)
  local fields = known and cmsgpack.unpack(known)
  local verdict = 0
  if not fields or fields[6] ~= token or not redis.call('ZSCORE', leases, task) then
    verdict = -1
  else
    local delay = 0
    if why == 'returned' then
      fields[8] = fields[8] - 1
    elseif why == 'failed' then
      fields[4] = fields[4] + 1
      -- Exponential backoff with full jitter: uniform in [0, min(cap, base * 2^(n-1))).
      delay = math.floor(jitter * math.min(cap, base * 2 ^ (fields[4] - 1)))
    else
      fields[5] = fields[5] + 1
    end
    if fields[4] >= max_failures or fields[5] >= max_faults then
      verdict = math.max(fields[8], 1)
    else
      fields[6] = ''
      if why ~= 'returned' then
        fields[3] = math.max(fields[3], head_start)
      end
      redis.call('ZREM', leases, task)
      if delay > 0 then
        redis.call('ZADD', delayed, now + delay, task)
      else
        redis.call('ZADD', ready .. ':' .. fields[2], fields[7] - fields[3], task)
        redis.call('ZADD', tenants, 'NX', redis.call('GET', pass_key) or '0', fields[2])
      end
      woken = true
    end
    redis.call('HSET', state, task, cmsgpack.pack(fields))
  end
  verdicts[#verdicts + 1] = verdict
end
if woken then
  redis.call('PUBLISH', ARGV[2], ARGV[3])
end
return verdicts
