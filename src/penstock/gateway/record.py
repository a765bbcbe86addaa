"""Step 12: one `Exchange` into the journal, and its numbers into the metrics."""

import time

from penstock.core.exchange import FROM_CACHE, Exchange, Phases, Usage
from penstock.gateway.call import Call
from penstock.gateway.entry import Entry
from penstock.gateway.metrics import Meters
from penstock.gateway.notice import notice
from penstock.gateway.ratelimit import limit_lines
from penstock.gateway.semantic import keep

_NOTHING = Usage()
_UNKNOWN = b"x-penstock-version: \r\nx-penstock-digest: \r\nx-penstock-arm: \r\n"


def reply_lines(call: Call) -> bytes:
    """The `x-penstock-*` and `x-ratelimit-*` fields of a reply."""
    leg = call.leg
    lines = b"x-penstock-request-id: %b\r\nx-penstock-cache: %b\r\n%b" % (
        call.id.encode(),
        call.cache.encode(),
        leg.lines if leg is not None else _UNKNOWN,
    )
    if call.notes:
        lines += call.notes
    holder = call.holder
    return lines if holder is None else lines + limit_lines(holder, time.monotonic())


def exchange_of(call: Call, usage: Usage = _NOTHING, cost: int = 0) -> Exchange:
    """What is known of the request now."""
    caller, route, leg = call.caller, call.route, call.leg
    pool = leg.entry.pool if leg is not None else None
    return Exchange(
        id=call.id,
        at=call.at,
        worker=call.gateway.worker,
        operation=call.operation,
        tenant=caller.tenant.name if caller is not None else "",
        key=caller.key.id if caller is not None else "",
        user=call.user,
        session=call.session,
        model=call.envelope.model,
        route=route.route.name if route is not None else "",
        experiment=route.assigner.entry.name if route is not None and route.assigner is not None else "",
        arm=call.arm,
        epoch=call.epoch,
        propensity=call.propensity,
        unit=call.unit,
        context=call.context,
        pair=call.pair,
        pool=pool.name if pool is not None else "",
        replica=call.replica,
        version=pool.version if pool is not None else "",
        digest=call.digest,
        stream=call.stream,
        status=call.status,
        outcome=call.outcome,
        error=call.error,
        finish=call.finish,
        phases=_phases(call),
        usage=usage,
        chunks=call.chunks,
        cost_nanousd=cost,
        cache=call.cache,
        attempts=call.attempts,
        hedged=call.hedged,
        fallback=call.fallback,
        resumed=call.resumed,
        findings=call.findings,
        trace=call.trace,
        parent=call.parent,
        generation=call.index.generation,
        escalated=call.escalated,
        tried=call.tried or _NOTHING,
        trimmed=call.trimmed,
        quality=call.quality,
        noticed=call.noticed,
        content=call.content,
        engine=call.engine,
        tries=call.tries,
    )


def _phases(call: Call) -> Phases:
    """When each phase ended, in order: what an attempt before the last one reached, and the last one did not, was not reached."""
    decoded, admitted, dispatched, first, last = (
        call.decoded_ns,
        call.admitted_ns,
        call.dispatched_ns,
        call.first_ns,
        call.last_ns,
    )
    if dispatched < admitted or dispatched < decoded:
        dispatched = 0
    if first < admitted or first < dispatched:
        first = 0
    if last < first or not first:
        last = 0
    return Phases(decoded, admitted, dispatched, first, last, time.monotonic_ns() - call.started_ns)


def record(call: Call, usage: Usage, nanousd: int) -> None:
    """Hands the request to the journal, whose `flush` is the caller's, counts it, and remembers its answer if it may be given again."""
    gateway = call.gateway
    if call.noticing:
        call.noticed = notice(call)
    exchange = exchange_of(call, usage, nanousd)
    gateway.journal.add(exchange)
    count(gateway.meters, exchange)
    if call.shadow is not None:
        gateway.shadows.offer(call, usage, nanousd)
    if call.keeps and call.kept and call.outcome == "ok" and call.route is not None and call.route.cache is not None:
        ttl = call.route.cache.ttl_s
        if ttl <= 0:
            return
        entry = Entry(
            body=b"".join(call.kept),
            usage_event=call.usage_event,
            stream=call.stream,
            usage=usage,
            finish=call.finish,
            chunks=call.chunks,
            expires=call.at + ttl,
            escalated=call.escalated,
            tenant=exchange.tenant,
        )
        gateway.cache.put(call.cache_key, entry)
        if call.seeking:
            keep(call, entry)


def count(meters: Meters, exchange: Exchange) -> None:
    """Adds what the record tells to the metrics: when it is made, or when it is read again after a worker was killed."""
    phases, usage = exchange.phases, exchange.usage
    cache, stream = exchange.cache, exchange.stream
    cells = meters.leg(exchange.route, exchange.arm, exchange.operation)
    cells.result(exchange.status, exchange.outcome).value += 1
    cells.duration.observe(phases.done * 1e-9)
    cells.phases.observe(phases)
    if exchange.error:
        meters.error(exchange.error)
    if phases.first_token:
        cells.first.observe(phases.first_token * 1e-9)
    if usage.prompt and cache not in FROM_CACHE:
        cells.prompt.observe(usage.prompt)
        cells.completion.observe(usage.completion)
        if usage.cached:
            name = "penstock_prefix_cached_tokens_total"
            meters.cell(name, exchange.route, exchange.arm).value += usage.cached
        if stream and usage.completion > 1 and phases.last_token > phases.first_token:
            cells.per_token.observe((phases.last_token - phases.first_token) * 1e-9 / (usage.completion - 1))
    if exchange.trace:
        cells.trace(exchange)
    if exchange.quality is not None:
        cells.quality.observe(exchange.quality)
    if stream:
        meters.chunks.value += exchange.chunks
    if cache == "hit":
        meters.cache_hit.value += 1
    elif cache == "semantic":
        meters.cache_semantic.value += 1
    elif cache == "miss":
        meters.cache_miss.value += 1
    requests, cost = cells.of(exchange.tenant, exchange.version)
    requests.value += 1
    cost.value += exchange.cost_nanousd * 1e-9
    for finding in exchange.findings:
        cell = meters.cell("penstock_guard_findings_total", finding.rule, finding.action, finding.where)
        cell.value += finding.count
