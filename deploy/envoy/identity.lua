-- Says who calls, for the limits: the metadata "cinnabar.identity" gets tenant and user of the credential, or
-- anonymous where there is none that could be valid. It proves nothing; the gateway decides who may do what.
--
-- The credential of development: Bearer dev.<tenant>.<role>.<user>

local ROLES = {student = true, instructor = true, operator = true}
local NAMESPACE = "cinnabar.identity"

local function is_id(text)
  return #text <= 63 and string.find(text, "^[a-z0-9-]+$") ~= nil
end

function envoy_on_request(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  local scheme, token = string.match(handle:headers():get("authorization") or "", "^(%a+) %s*(%S+)%s*$")
  if scheme and string.lower(scheme) == "bearer" then
    local tenant, role, user = string.match(token, "^dev%.([^.]+)%.([^.]+)%.([^.]+)$")
    if tenant and ROLES[role] and is_id(tenant) and is_id(user) then
      metadata:set(NAMESPACE, "tenant", tenant)
      metadata:set(NAMESPACE, "user", user)
      return
    end
  end
  metadata:set(NAMESPACE, "anonymous", "yes")
end
