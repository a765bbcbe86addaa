"""Step 12: one `Exchange` into the journal, and its numbers into the metrics."""

import time

from penstock.core.exchange import FROM_CACHE, Content, Exchange, Phases, Usage
from penstock.gateway.cache import Entry
from penstock.gateway.call import Call
from penstock.gateway.capture import content_of
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


def exchange_of(call: Call, usage: Usage = _NOTHING, cost: int = 0, content: Content | None = None) -> Exchange:
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
        pool=pool.name if pool is not None else "",
        replica=call.replica,
        context=call.context,
        version=pool.version if pool is not None else "",
        digest=call.digest,
        stream=call.stream,
        status=call.status,
        outcome=call.outcome,
        error=call.error,
        finish=call.finish,
        phases=Phases(
            call.decoded_ns,
            call.admitted_ns,
            call.dispatched_ns,
            call.first_ns,
            call.last_ns,
            time.monotonic_ns() - call.started_ns,
        ),
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
        content=content,
    )


def record(call: Call, usage: Usage, nanousd: int) -> None:
    """Journals the request, counts it, and remembers its answer if it may be given again."""
    gateway = call.gateway
    if call.noticing:
        call.noticed = notice(call)
    content = None
    if call.captured:
        content = content_of(call)
        call.captured = content is not None
    exchange = exchange_of(call, usage, nanousd, content)
    gateway.journal.append(exchange)
    count(gateway.meters, exchange)
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


def _count(call: Call, exchange: Exchange, usage: Usage) -> None:
    meters = call.gateway.meters
    phases = exchange.phases
    cells = meters.leg(exchange.route, call.arm)
    cells.result(call.status, call.outcome).value += 1
    cells.duration.observe(phases.done * 1e-9)
    if call.error:
        meters.error(call.error)
    if phases.first_token:
        cells.first.observe(phases.first_token * 1e-9)
    if call.recalled is None and usage.prompt:
        cells.prompt.observe(usage.prompt)
        cells.completion.observe(usage.completion)
        if call.stream and usage.completion > 1 and phases.last_token > phases.first_token:
            cells.per_token.observe((phases.last_token - phases.first_token) * 1e-9 / (usage.completion - 1))
    if call.quality is not None:
        cells.quality.observe(call.quality)
    if call.stream:
        meters.chunks.value += call.chunks
    if call.cache == "hit":
        meters.cache_hit.value += 1
    elif call.cache == "semantic":
        meters.cache_semantic.value += 1
    elif call.cache == "miss":
        meters.cache_miss.value += 1
    if exchange.cost_nanousd:
        meters.cell("penstock_cost_usd_total", exchange.tenant, exchange.route).value += exchange.cost_nanousd * 1e-9
    for finding in call.findings:
        cell = meters.cell("penstock_guard_findings_total", finding.rule, finding.action, finding.where)
        cell.value += finding.count
