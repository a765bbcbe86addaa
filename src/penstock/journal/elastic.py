"""Elasticsearch as a sink of the shipper: documents in bulk, each under an id of its own, so that a repeat is known and refused.

The protocol: elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk. Data streams take `create` alone; 409 says that a document is there.
"""

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import msgspec

from penstock.core.errors import Unavailable, UpstreamFailed
from penstock.core.exchange import Exchange, Observation
from penstock.journal.ecs import Document, document_of
from penstock.journal.elastic_template import POLICY, TEMPLATE, index_template, lifecycle
from penstock.journal.format import Position
from penstock.journal.posting import Poster
from penstock.journal.reader import Batch
from penstock.journal.refusals import DeadLetter, DeadLetters, Tally, bury, in_halves

BULK_BYTES = 4 * 1024 * 1024  # of one request before compression; servers take 100 MB, and advise 5 to 15
BULK_DOCUMENTS = 1000
TRIES = 5
SHORTEST_PAUSE_S = 0.1
# Refused with 400 for the cluster's state, not for the document: a limit on shards, an index that is being closed.
_PASSING = frozenset({"validation_exception", "index_closed_exception"})


class _Cause(msgspec.Struct, frozen=True):
    type: str = ""
    reason: str | None = ""


class _Result(msgspec.Struct, frozen=True):
    status: int
    error: _Cause | None = None


class _Item(msgspec.Struct, frozen=True):
    create: _Result


class _Bulk(msgspec.Struct, frozen=True):
    items: list[_Item]
    errors: bool = True


class ElasticSink:
    """Three data streams of one cluster; see `ecs` for the documents and `elastic_template` for their fields."""

    name = "elasticsearch"

    def __init__(
        self,
        url: str,
        dead: DeadLetters,
        *,
        api_key: str = "",
        retention_days: int = 30,
        slow_s: float = 10.0,
        pause_s: float = SHORTEST_PAUSE_S,
    ) -> None:
        """A cluster at `url`, which may hold a name and password instead of an `api_key`.

        Raises:
            BadRequest: if `url` is none.
        """
        self.tally = Tally()
        self._poster = Poster("Elasticsearch", url, (("authorization", f"ApiKey {api_key}"),) if api_key else ())
        self._dead = dead
        self._retention_days = retention_days
        self._slow_s = slow_s
        self._pause_s = pause_s

    async def positions(self) -> dict[str, Position] | None:
        """The saved offsets count. Installs the policy and the template, if they are not there: at the start, and after every failure.

        Raises:
            PenstockError: if the cluster does not take them.
        """
        policy = lifecycle(self._retention_days)
        await self._install(f"/_ilm/policy/{POLICY}", policy, lambda told: told[POLICY]["policy"]["_meta"])
        await self._install(
            f"/_index_template/{TEMPLATE}",
            index_template(),
            lambda told: told["index_templates"][0]["index_template"]["_meta"],
        )
        return None

    async def send(self, worker: str, batch: Batch) -> None:
        """Index what it tells; `worker` stands in the records themselves.

        Raises:
            PenstockError: if the cluster did not take it all.
            OSError: if what it refuses cannot be written down.
        """
        documents = [
            document_of(record, self._slow_s)
            for _, record in batch.records()
            if isinstance(record, Exchange | Observation)
        ]
        await self.index(documents)

    async def index(self, documents: Sequence[Document]) -> None:
        """Index `documents`.

        Raises:
            PenstockError: if the cluster did not take it all.
            OSError: if what it refuses cannot be written down.
        """
        letters: list[DeadLetter] = []
        for part in _parts(documents):
            refused = await in_halves(part, partial(self._offer, letters))
            letters += [_letter(document, reason) for document, reason in refused]
        bury(letters, len(documents), "Elasticsearch", self._dead, self.tally)

    async def close(self) -> None:
        """Close the connections."""
        await self._poster.close()

    async def _install(self, path: str, wanted: dict[str, Any], meta: Any) -> None:
        """PUT it, unless the same revision is there: what an operator has changed in it stays."""
        answer = await self._poster.ask("GET", path)
        if answer.status == 200:
            try:
                found = meta(msgspec.json.decode(answer.body))
            except (msgspec.DecodeError, LookupError, TypeError):
                found = None
            if found == meta_of(wanted):
                return
        elif answer.status != 404:
            raise self._poster.failure(answer)
        answer = await self._poster.ask("PUT", path, msgspec.json.encode(wanted))
        if answer.status != 200:
            raise self._poster.failure(answer)

    async def _offer(self, letters: list[DeadLetter], documents: Sequence[Document]) -> str:
        """Index `documents`, those that are put off again and again; those that are refused for good go to `letters`.

        The answer is the reason if the request as a whole is too large or malformed, else nothing.

        Raises:
            Unavailable: if some are still put off.
        """
        waiting = list(documents)
        pause = self._pause_s
        refused: list[DeadLetter] = []
        for attempt in range(TRIES):
            answer = await self._poster.ask("POST", "/_bulk", _body(waiting), "application/x-ndjson")
            if answer.status in {400, 413}:
                return self._poster.complaint(answer)
            if answer.status != 200:
                raise self._poster.failure(answer)
            results = self._results(answer.body, len(waiting))
            again: list[Document] = []
            reason = ""
            for document, result in zip(waiting, results, strict=True):
                if 200 <= result.status < 300 or result.status == 409:
                    continue
                cause = result.error or _Cause()
                told = f"{result.status} {cause.type}: {cause.reason}"
                if result.status == 400 and cause.type not in _PASSING:
                    refused.append(_letter(document, told))
                else:
                    again.append(document)
                    reason = told
            waiting = again
            if not waiting:
                letters += refused
                return ""
            self.tally.retried += len(waiting)
            if attempt < TRIES - 1:
                await asyncio.sleep(pause)
                pause *= 2
        raise Unavailable(f"Elasticsearch puts off {len(waiting)} of {len(documents)} documents: {reason[:300]}")

    @staticmethod
    def _results(body: bytes, expected: int) -> list[_Result]:
        try:
            told = msgspec.json.decode(body, type=_Bulk)
        except msgspec.DecodeError as error:
            raise UpstreamFailed(f"Elasticsearch's answer to a bulk request is none: {error}.") from None
        if len(told.items) != expected:
            raise UpstreamFailed(f"Elasticsearch answered for {len(told.items)} of {expected} documents.")
        return [item.create for item in told.items]


def meta_of(wanted: dict[str, Any]) -> Any:
    """What marks a policy or template as ours, and of which revision."""
    return wanted.get("_meta") or wanted["policy"]["_meta"]


def _letter(document: Document, reason: str) -> DeadLetter:
    return DeadLetter(id=document.id, reason=reason, record=msgspec.Raw(document.source))


def _body(documents: Sequence[Document]) -> bytes:
    lines = []
    for document in documents:
        lines.append(msgspec.json.encode({"create": {"_index": document.stream, "_id": document.id}}))
        lines.append(document.source)
    return b"\n".join(lines) + b"\n"


def _parts(documents: Sequence[Document]) -> Iterator[list[Document]]:
    """Pieces for one request each."""
    part: list[Document] = []
    size = 0
    for document in documents:
        if part and (len(part) == BULK_DOCUMENTS or size + len(document.source) > BULK_BYTES):
            yield part
            part, size = [], 0
        part.append(document)
        size += len(document.source) + 128  # and the line before it
    if part:
        yield part
