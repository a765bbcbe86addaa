-- The books of all limits in Redis: one turn of one worker, whole or not at all. The rules are those of penstock.access.register.
--
-- KEYS[1]: the prefix of all keys; ARGV[1]: msgpack of
--   {worker, sequence, now or 0, seats by scope or nil, {{scope, resource, slot, amount}, ...}, {{{scope, resource, limit, need}, ...}, ...}}
-- Answers msgpack of {state, {answer, ...}, workers}: state 0 done, 1 the worker must join first, 2 this turn was done before;
-- workers: how many are alive.
-- An answer is {0, {{extra, slot, remaining, reset_s}, ...}} or {1, {index, wait or -1 for never, remaining, reset_s}}.
--
-- Keys: PREFIXclock, PREFIXalive (who, until when), PREFIXturns (who, last sequence), PREFIXheld:WHO (scopes it has seats of),
-- PREFIXseats:SCOPE (who, how many), PREFIXuse:RESOURCE:SCOPE (slots, used, oldest, newest), PREFIXleased:RESOURCE:SCOPE (who, amount and end).

local prefix = KEYS[1]
local worker, sequence, given, seats, returns, asks = unpack(cmsgpack.unpack(ARGV[1]), 1, 6)
local alive, turns = prefix .. 'alive', prefix .. 'turns'

local function whole(number)
  return string.format('%.0f', number)
end

-- Time that never goes back. After a pause of everybody, which is Redis' own, nobody is taken for dead before all could come again.
local now = given
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1e6
end
local before, grace = unpack(redis.call('HMGET', prefix .. 'clock', 'now', 'grace'))
before, grace = tonumber(before) or now, tonumber(grace) or 0
if now < before then
  now = before
elseif now - before > SILENCE_S then
  grace = now + GRACE_S
end
redis.call('HSET', prefix .. 'clock', 'now', string.format('%.6f', now), 'grace', string.format('%.6f', grace))

local function hold(scope, who, amount)
  if amount > 0 then
    redis.call('HSET', prefix .. 'seats:' .. scope, who, whole(amount))
    redis.call('SADD', prefix .. 'held:' .. who, scope)
  else
    redis.call('HDEL', prefix .. 'seats:' .. scope, who)
    redis.call('SREM', prefix .. 'held:' .. who, scope)
  end
end

local function held(scope, who)
  return tonumber(redis.call('HGET', prefix .. 'seats:' .. scope, who)) or 0
end

local function leave(who)
  for _, scope in ipairs(redis.call('SMEMBERS', prefix .. 'held:' .. who)) do
    hold(scope, who, 0)
  end
  redis.call('ZREM', alive, who)
  redis.call('HDEL', turns, who)
end

if now >= grace then
  for _, who in ipairs(redis.call('ZRANGEBYSCORE', alive, '-inf', string.format('(%.6f', now), 'LIMIT', 0, 16)) do
    if who ~= worker then
      leave(who)
    end
  end
end
if not seats and not redis.call('ZSCORE', alive, worker) then
  return cmsgpack.pack({1, {}, 0})
end
redis.call('ZADD', alive, string.format('%.6f', now + DEAD_S), worker)
if sequence <= (tonumber(redis.call('HGET', turns, worker)) or 0) then
  return cmsgpack.pack({2, {}, 0})
end
redis.call('HSET', turns, worker, whole(sequence))

if seats then
  for _, scope in ipairs(redis.call('SMEMBERS', prefix .. 'held:' .. worker)) do
    if not seats[scope] then
      hold(scope, worker, 0)
    end
  end
  for scope, amount in pairs(seats) do
    hold(scope, worker, amount)
  end
end

-- Windows: as penstock.access.limits.Window.

local function use_key(scope, resource)
  return prefix .. 'use:' .. resource .. ':' .. scope
end

local function free_at(resource, slot)
  return (slot + 1) * resource.slot_s + resource.window_s
end

local function slot_now(resource)
  return math.floor((now + resource.lease_s) / resource.slot_s)
end

-- What counts now, the oldest slot and the newest; slots that no longer count are let go.
local function advanced(key, resource)
  local used, oldest, newest = unpack(redis.call('HMGET', key, 'used', 'oldest', 'newest'))
  used, oldest, newest = tonumber(used) or 0, tonumber(oldest), tonumber(newest)
  if not oldest then
    return 0, nil, nil
  end
  local first = oldest
  while oldest <= newest and free_at(resource, oldest) <= now do
    local amount = tonumber(redis.call('HGET', key, oldest))
    if amount then
      used = used - amount
      redis.call('HDEL', key, oldest)
    end
    oldest = oldest + 1
  end
  if oldest > newest then
    redis.call('DEL', key)
    return 0, nil, nil
  end
  if oldest > first then
    redis.call('HSET', key, 'used', whole(used), 'oldest', whole(oldest))
  end
  return used, oldest, newest
end

local function book(key, resource, slot, amount, oldest, newest)
  local there = tonumber(redis.call('HGET', key, slot))
  if amount < 0 then
    if not there then
      return 0
    end
    amount = math.max(amount, -there)
  end
  redis.call('HINCRBY', key, slot, whole(amount))
  redis.call('HINCRBY', key, 'used', whole(amount))
  if amount > 0 then
    if not oldest or slot < oldest then
      redis.call('HSET', key, 'oldest', whole(slot))
    end
    if not newest or slot > newest then
      redis.call('HSET', key, 'newest', whole(slot))
    end
    redis.call('EXPIRE', key, math.ceil(resource.window_s + resource.slot_s + resource.lease_s) + 60)
  end
  return amount
end

local function take_back(scope, number, slot, amount)
  if number == SEATS then
    hold(scope, worker, math.max(0, held(scope, worker) - amount))
    return
  end
  local resource, key = RESOURCES[number], use_key(scope, number)
  local _, oldest, newest = advanced(key, resource)
  if amount < 0 then
    book(key, resource, slot_now(resource), -amount, oldest, newest)
  elseif slot ~= OLDEST then
    book(key, resource, slot, -amount, oldest, newest)
  elseif oldest then
    for each = oldest, newest do
      amount = amount + book(key, resource, each, -amount, oldest, newest)
      if amount <= 0 then
        break
      end
    end
  end
end

for _, returned in ipairs(returns) do
  take_back(unpack(returned, 1, 4))
end

-- What does not fit: for how long (-1: never), what is left, when all of it is free. nil: it fits.
local function refusal(scope, number, limit, need)
  if number == SEATS then
    local total = 0
    for _, amount in ipairs(redis.call('HVALS', prefix .. 'seats:' .. scope)) do
      total = total + tonumber(amount)
    end
    if total + need <= limit then
      return nil
    end
    return need <= limit and 1 or -1, math.max(0, limit - total), 1
  end
  local resource, key = RESOURCES[number], use_key(scope, number)
  local used, oldest, newest = advanced(key, resource)
  local excess = used + need - limit
  if excess <= 0 then
    return nil
  end
  local wait, reset = -1, 0
  if newest then
    reset = free_at(resource, newest) - now
  end
  if need <= limit and oldest then
    for slot = oldest, newest do
      excess = excess - (tonumber(redis.call('HGET', key, slot)) or 0)
      if excess <= 0 then
        wait = free_at(resource, slot) - now
        break
      end
    end
  end
  return wait, math.max(0, limit - used), reset
end

-- A part of what may be leased beside the need: half of what nobody has, so that the next worker has something too.
local function extra_of(scope, number, limit, left)
  local most = math.floor(limit / LEASED_SHARE)
  if most == 0 then
    return 0
  end
  local key, free = prefix .. 'leased:' .. number .. ':' .. scope, most
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local amount, ends = string.match(all[i + 1], '(%S+) (%S+)')
    if all[i] == worker or tonumber(ends) <= now then
      redis.call('HDEL', key, all[i])
    else
      free = free - tonumber(amount)
    end
  end
  local extra = math.max(0, math.min(math.ceil(free / 2), left))
  if extra > 0 then
    local lease_s = RESOURCES[number].lease_s
    redis.call('HSET', key, worker, whole(extra) .. ' ' .. string.format('%.6f', now + lease_s))
    redis.call('EXPIRE', key, math.ceil(lease_s) + 60)
  end
  return extra
end

local function lease(scope, number, limit, need)
  if number == SEATS then
    local total = 0
    for _, amount in ipairs(redis.call('HVALS', prefix .. 'seats:' .. scope)) do
      total = total + tonumber(amount)
    end
    local left = limit - total - need
    local extra = extra_of(scope, number, limit, left)
    hold(scope, worker, held(scope, worker) + need + extra)
    return {extra, 0, left - extra, 1}
  end
  local resource, key = RESOURCES[number], use_key(scope, number)
  local used, oldest, newest = advanced(key, resource)
  local slot = slot_now(resource)
  local extra = extra_of(scope, number, limit, limit - used - need)
  if need + extra > 0 then
    book(key, resource, slot, need + extra, oldest, newest)
  end
  return {extra, slot, math.max(0, limit - used - need - extra), free_at(resource, slot) - now}
end

local answers = {}
for number, wants in ipairs(asks) do
  local worst = nil
  for index, want in ipairs(wants) do
    local wait, remaining, reset = refusal(unpack(want, 1, 4))
    if wait and (not worst or wait == -1 or (worst[2] ~= -1 and wait > worst[2])) then
      worst = {index - 1, wait, remaining, reset}
    end
  end
  if worst then
    answers[number] = {1, worst}
  else
    local leases = {}
    for index, want in ipairs(wants) do
      leases[index] = lease(unpack(want, 1, 4))
    end
    answers[number] = {0, leases}
  end
end
return cmsgpack.pack({0, answers, redis.call('ZCARD', alive)})
