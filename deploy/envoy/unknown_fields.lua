-- Refuses REST requests whose JSON body has a field that the message does not have. The transcoder drops such a
-- field without a word, so a misspelt optional field would never be noticed.
--
-- Anything else that is wrong with the body is left to the transcoder, which answers 400 and says where.
--
-- MESSAGES  message -> JSON name and proto name of each field -> message of the field, or false to look no further
-- BINDINGS  HTTP method -> list of {Lua pattern of the path, message of the body, its path in the request}
-- Both are generated from the descriptor set and stand before this text.

local QUOTE, BACKSLASH = 34, 92
local OPEN_OBJECT, CLOSE_OBJECT, OPEN_ARRAY, CLOSE_ARRAY, COMMA = 123, 125, 91, 93, 44
local MAX_DEPTH = 64

local byte, find, match, sub = string.byte, string.find, string.match, string.sub

-- Each scanning function returns the position after what it scanned. Otherwise nil: and the path of an unknown
-- field, or nothing where the JSON is broken.
local scan_value

local function scan_string(body, at)
  at = at + 1
  while true do
    local stop = find(body, '["\\]', at)
    if not stop then return nil end
    if byte(body, stop) == QUOTE then return stop + 1 end
    at = stop + 2
  end
end

local function scan_object(body, at, message, depth)
  local fields = message and MESSAGES[message]
  at = match(body, "^%s*()", at)
  if byte(body, at) == CLOSE_OBJECT then return at + 1 end
  while byte(body, at) == QUOTE do
    local stop = scan_string(body, at)
    if not stop then return nil end
    local name = sub(body, at + 1, stop - 2)
    local inner = false
    if fields and not find(name, "\\", 1, true) then
      inner = fields[name]
      if inner == nil then return nil, name end
    end
    at = match(body, "^%s*:%s*()", stop)
    if not at then return nil end
    local after, unknown = scan_value(body, at, inner, depth)
    if not after then return nil, unknown and (name .. "." .. unknown) end
    at = match(body, "^%s*()", after)
    if byte(body, at) == CLOSE_OBJECT then return at + 1 end
    if byte(body, at) ~= COMMA then return nil end
    at = match(body, "^%s*()", at + 1)
  end
  return nil
end

local function scan_array(body, at, message, depth)
  at = match(body, "^%s*()", at)
  if byte(body, at) == CLOSE_ARRAY then return at + 1 end
  local index = 0
  while true do
    local after, unknown = scan_value(body, at, message, depth)
    if not after then return nil, unknown and ("[" .. index .. "]." .. unknown) end
    at = match(body, "^%s*()", after)
    if byte(body, at) == CLOSE_ARRAY then return at + 1 end
    if byte(body, at) ~= COMMA then return nil end
    at = match(body, "^%s*()", at + 1)
    index = index + 1
  end
end

scan_value = function(body, at, message, depth)
  if depth > MAX_DEPTH then return nil end
  local first = byte(body, at)
  if first == QUOTE then return scan_string(body, at) end
  if first == OPEN_OBJECT then return scan_object(body, at + 1, message, depth + 1) end
  if first == OPEN_ARRAY then return scan_array(body, at + 1, message, depth + 1) end
  return match(body, "^[%w%.%+%-]+()", at)
end

local function message_of(method, path)
  for _, binding in ipairs(BINDINGS[method] or {}) do
    if find(path, binding[1]) then return binding[2], binding[3] end
  end
  return nil
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local kind = headers:get("content-type") or ""
  if sub(kind, 1, 16) == "application/grpc" then return end
  local message, prefix = message_of(headers:get(":method"), match(headers:get(":path"), "^[^?]*"))
  if not message then return end
  local buffer = handle:body()
  if not buffer or buffer:length() == 0 then return end
  local body = buffer:getBytes(0, buffer:length())
  local _, unknown = scan_value(body, match(body, "^%s*()"), message, 0)
  if unknown then
    local field = string.gsub(prefix .. unknown, "%.%[", "[")
    handle:streamInfo():dynamicMetadata():set("envoy.filters.http.lua", "unknown_field", field)
    handle:respond({[":status"] = "400"}, "no such field: " .. field)
  end
end
