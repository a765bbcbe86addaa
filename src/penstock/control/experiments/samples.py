"""Which requests of an experiment can be read side by side: the newest whose content was kept, by arm, or pair by pair."""

from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.core.exchange import Exchange
from penstock.store.schema_experiments import exchanges

_LOOKED_AT = 1_000  # of the newest records
_decode = msgspec.msgpack.Decoder(Exchange).decode


async def samples_of(connection: AsyncConnection, name: str, *, limit: int) -> list[dict[str, Any]]:
    """Newest first. Each tells the requests to read, in `answers`: the arm, the request, and of which of its choices.

    Where two arms answered the same request they stand together, with how alike they are; else each arm has up to `limit` of its own.

    Args:
        connection: to read with.
        name: of the experiment.
        limit: pairs, or requests of an arm.
    """
    statement = select(exchanges.c.record).where(exchanges.c.experiment == name, exchanges.c.arm != "")
    rows = await connection.execute(statement.order_by(exchanges.c.sequence.desc()).limit(_LOOKED_AT))
    found: list[dict[str, Any]] = []
    by_arm: dict[str, int] = {}
    paired = False
    for row in rows:
        exchange = _decode(row.record)
        if exchange.content is None or exchange.status != 200:
            continue
        if exchange.pair is not None:
            paired = True
            one = _pair(exchange)
            if one is not None and len(found) < limit:
                found.append(one)
        elif not paired and by_arm.get(exchange.arm, 0) < limit:
            by_arm[exchange.arm] = by_arm.get(exchange.arm, 0) + 1
            found.append(_told(exchange, [_answer(exchange.arm, exchange.id, 0)]))
    return [one for one in found if len(one["answers"]) > 1] if paired else found


def _pair(exchange: Exchange) -> dict[str, Any] | None:
    pair = exchange.pair
    if pair is None:
        return None
    if pair.of:
        answers = [_answer(pair.arm, pair.of, 0), _answer(exchange.arm, exchange.id, 0)]
    elif len(pair.shown) == 2:
        answers = sorted(
            (_answer(arm, exchange.id, index) for index, arm in enumerate(pair.shown)),
            key=lambda one: one["arm"] != exchange.arm,
        )
    else:
        return None
    return _told(exchange, answers) | {
        "similarity": pair.similarity / 1_000_000 if pair.similarity >= 0 else None,
        "judged": pair.judged or None,
    }


def _told(exchange: Exchange, answers: list[dict[str, Any]]) -> dict[str, Any]:
    return {"at": exchange.at, "tenant": exchange.tenant, "answers": answers, "similarity": None, "judged": None}


def _answer(arm: str, request: str, choice: int) -> dict[str, Any]:
    return {"arm": arm, "request": request, "choice": choice}
