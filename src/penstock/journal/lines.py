"""Records as lines of JSON on a stream, for collectors that read what processes print: the documents of Elasticsearch, one a line."""

import asyncio
from collections.abc import Sequence
from typing import BinaryIO

from penstock.core.exchange import Exchange, Observation
from penstock.journal.ecs import Document, document_of
from penstock.journal.format import Position
from penstock.journal.reader import Batch
from penstock.journal.refusals import Tally


class LinesSink:
    """Writes to `stream`, from a thread: one that nobody reads delays this reader and no other."""

    name = "stdout"

    def __init__(self, stream: BinaryIO, *, slow_s: float = 10.0) -> None:
        self.tally = Tally()
        self._stream = stream
        self._slow_s = slow_s

    async def positions(self) -> dict[str, Position] | None:
        """The saved offsets count."""
        return None

    async def send(self, worker: str, batch: Batch) -> None:
        """Write a line for each request and observation; `worker` stands in the records themselves.

        Raises:
            OSError: if nobody is there any more to read.
        """
        await self.index(
            [
                document_of(record, self._slow_s)
                for _, record in batch.records()
                if isinstance(record, Exchange | Observation)
            ]
        )

    async def index(self, documents: Sequence[Document]) -> None:
        """Write a line for each document.

        Raises:
            OSError: if nobody is there any more to read.
        """
        if documents:
            await asyncio.to_thread(self._write, b"".join(one.source + b"\n" for one in documents))

    async def close(self) -> None:
        """The stream is not ours to close."""

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._stream.flush()
