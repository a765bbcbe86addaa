"""A page of an evaluator: the next answers of its offset, those that are drawn, and their content, opened."""

import asyncio
from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import SYSTEM, Control
from penstock.control.evaluators.entry import EVALUATORS
from penstock.control.specs.evaluator import EvaluatorSpec
from penstock.core.errors import Unavailable
from penstock.core.exchange import Exchange
from penstock.experiments.references import plain
from penstock.experiments.scoring import drawn
from penstock.journal.keystore import Keystore
from penstock.journal.reading import open_content
from penstock.store.schema_experiments import exchanges

PAGE = 64
_TALKING = frozenset({"chat", "completions", "responses"})
_ASKED = frozenset({"user", "prompt", "input"})
_decode = msgspec.msgpack.Decoder(Exchange).decode


class Item(NamedTuple):
    """An answered request; `epoch` is 0 where no experiment counts it."""

    exchange: Exchange
    epoch: int
    sequence: int


class Page(NamedTuple):
    """What is looked at next. When it is done, all up to `end` has been; `more`: there may be something behind it already."""

    items: tuple[Item, ...]
    end: int
    more: bool


class Text(NamedTuple):
    """What was said in one exchange: the last thing asked, all that was asked, and the answers by choice."""

    question: str
    request: str
    answers: dict[int, str]


async def first_sequence(connection: AsyncConnection, since: float) -> int:
    """Where an evaluator begins that looks back to `since` (Unix seconds)."""
    before = select(func.max(exchanges.c.sequence)).where(exchanges.c.at < since)
    return (await connection.execute(before)).scalar_one_or_none() or 0


async def read_page(connection: AsyncConnection, spec: EvaluatorSpec, after: int) -> Page:
    """The answered requests behind the ingest sequence `after` that `spec` is about, `PAGE` at most, oldest first."""
    newest = (await connection.execute(select(func.max(exchanges.c.sequence)))).scalar_one_or_none() or 0
    rows = (await connection.execute(_wanted(spec, after, newest))).all()
    items = tuple(Item(_decode(row.record), row.epoch, row.sequence) for row in rows)
    full = len(rows) == PAGE
    return Page(items, rows[-1].sequence if full else max(after, newest), full)


def _wanted(spec: EvaluatorSpec, after: int, newest: int) -> Select[Any]:
    statement = select(exchanges.c.record, exchanges.c.epoch, exchanges.c.sequence).where(
        exchanges.c.sequence > after,
        exchanges.c.sequence <= newest,
        exchanges.c.outcome == "ok",
        exchanges.c.tenant != EVALUATORS,
    )
    if spec.of == "experiments":
        statement = statement.where(exchanges.c.experiment != "", exchanges.c.epoch > 0)
    for column, names in (
        (exchanges.c.experiment, spec.experiments),
        (exchanges.c.route, spec.routes),
        (exchanges.c.tenant, spec.tenants),
    ):
        if names:
            statement = statement.where(column.in_(names))
    return statement.order_by(exchanges.c.sequence).limit(PAGE)


async def by_id(connection: AsyncConnection, requests: Collection[str]) -> dict[str, Exchange]:
    """The exchanges of these requests, as far as they are known."""
    if not requests:
        return {}
    rows = await connection.execute(select(exchanges.c.record).where(exchanges.c.id.in_(sorted(requests))))
    return {one.id: one for one in (_decode(row.record) for row in rows)}


def drawn_from(name: str, spec: EvaluatorSpec, items: Sequence[Item]) -> list[Item]:
    """Those of `items` that are scored one by one, or as a pair that both arms answered: of each, `share`."""
    found = []
    for item in items:
        exchange = item.exchange
        paired = exchange.pair is not None
        if exchange.operation not in _TALKING or (paired and spec.compare is None):
            continue
        if paired or spec.compare is None:
            if drawn(name, exchange.id, spec.share):
                found.append(item)
        elif item.epoch > 0:  # by its question, when that is known
            found.append(item)
    return found


class Reader:
    """Opens contents for one evaluator, and says so in the audit trail before anything is told: once a page, however often it is begun again."""

    def __init__(self, control: Control, keys: Keystore, name: str) -> None:
        self._control = control
        self._keys = keys
        self._name = name
        self._noted: set[str] = set()  # requests of this page

    async def open(self, wanted: Sequence[Exchange]) -> dict[str, Text]:
        """What was said, by request; what was not kept or cannot be opened is left out.

        Raises:
            Unavailable: if keys cannot be read or the audit event cannot be written.
        """
        try:
            found = await asyncio.to_thread(self._open, wanted)
        except OSError as error:
            raise Unavailable(f"The keys of content cannot be read: {error.strerror}.") from None
        fresh = found.keys() - self._noted
        if fresh:
            await self._control.note(SYSTEM, "content.read", f"evaluator {self._name}", requests=sorted(fresh))
            self._noted |= fresh
        return found

    def turn(self) -> None:
        """The page is done: what is opened from now on is said anew."""
        self._noted.clear()

    def _open(self, wanted: Sequence[Exchange]) -> dict[str, Text]:
        found = {}
        for exchange in wanted:
            opened = open_content(self._keys, exchange)
            if opened.state == "readable":
                found[exchange.id] = _text(opened.told)
        return found

    def mark(self, tenant: str, question: str) -> str:
        """What tells a question of a tenant from any other, and from which it cannot be guessed without the keys."""
        words = f"{self._name}\0{tenant}\0{plain(question)}".encode()
        return blake2b(words, digest_size=16, key=self._keys.hash_key[:64]).hexdigest()


def _text(told: dict[str, Any]) -> Text:
    messages, answers = told["messages"], dict[int, str]()
    for reply in told["replies"]:
        if reply["field"] in {"content", "text"}:
            answers[reply["index"]] = answers.get(reply["index"], "") + reply["text"]
    asked = [one["text"] for one in messages if one["role"] in _ASKED]
    several = len(messages) > 1
    request = "\n".join(f"{one['role']}: {one['text']}" if several else one["text"] for one in messages)
    return Text(asked[-1] if asked else "", request, answers)
