"""Functions in Lua that scripts of a fleet share: each script has them in front of its text."""

from __future__ import annotations

# PEXPIRE works even if memory has run out, when SET is refused.
KEEP_LEASE = """
local function keep_lease(key, token, milliseconds)
    if redis.call('PEXPIRE', key, milliseconds) == 0 then
        redis.call('SET', key, token, 'PX', milliseconds)
    end
end
"""

# A replica may lag behind its primary, and a failover may have made a replica of this server. So it
# must not refuse an owner. To delete a field that is never there changes nothing on a primary, and
# is an error on a replica.
REFUSE = """
local function refuse(state, answer)
    redis.call('HDEL', state, '')
    return answer
end
"""

NOW = """
local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""

# Numbers are written by string.format: tostring() would round those of 15 digits and more. What no
# worker can have written counts as 0: others may write to Redis, too, and one damaged number must
# not keep the shard from all owners.
NUMBERS = """
local function read_number(text)
    local found = tonumber(text)
    if found and found >= 0 and found < 2 ^ 53 and found == math.floor(found) then
        return found
    end
    return 0
end
local function whole(number)
    return string.format('%.0f', number)
end
"""

LAST_ID = (
    NUMBERS
    + """
local function last_id(stream)
    if redis.call('EXISTS', stream) == 0 then
        return 0, 0
    end
    local info = redis.call('XINFO', 'STREAM', stream)
    for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then
            local epoch, sequence = string.match(info[i + 1], '^(%d+)-(%d+)$')
            return tonumber(epoch), tonumber(sequence)
        end
    end
end
"""
)
