-- Read and write the mark that says whether a place holds all it should.
--
-- KEYS  1 prefix of a partition, or of what is kept once for all
-- ARGV  1 'look' | 'begin' | 'finish' | 'copy'  2 fence of the rebuild  3 'open' | 'complete' (copy: a new place takes part)
-- RETURNS  look: {fence, 1 if complete} or {} where there is no mark that holds on this server
--          others: {1} done, {0} the mark is of another rebuild, or gone
--
-- The mark is "<fence> <open|complete> <run id of the server>": a server that was
-- restarted with old data, or a replica that took over, is not believed.
local key = prefix .. 'epoch'
local run_id = string.match(call('INFO', 'server'), 'run_id:(%w+)')
local found = call('GET', key)
local fence, progress, server
if found then
  fence, progress, server = string.match(found, '^(%S+) (%S+) (%S+)$')
end
local own = tonumber(ARGV[2])
if ARGV[1] == 'look' then
  if server ~= run_id then
    return {}
  end
  return {tonumber(fence), progress == 'complete' and 1 or 0}
elseif ARGV[1] == 'begin' then
  if found and tonumber(fence) > own then
    return {0}
  end
  call('SET', key, ARGV[2] .. ' open ' .. run_id)
elseif ARGV[1] == 'finish' then
  if server ~= run_id or tonumber(fence) ~= own then
    return {0}
  end
  call('SET', key, ARGV[2] .. ' complete ' .. run_id)
elseif not found then
  call('SET', key, ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. run_id)
end
return {1}
