"""Traces as a sink of the shipper: exchanges are sampled, and a carrier makes spans of them in its own format."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from penstock.core.exchange import Exchange
from penstock.journal.format import Position
from penstock.journal.reader import Batch
from penstock.journal.refusals import DeadLetter, DeadLetters, Tally, bury, in_halves
from penstock.journal.sampling import Sampling, is_sampled
from penstock.journal.spans import trace_of

PART = 256  # exchanges in one request: well below a megabyte of spans, where collectors bound theirs at four


class Carrier(Protocol):
    """Sends spans to one place, in one format."""

    @property
    def name(self) -> str:
        """The reader's name."""

    async def offer(self, worker: str, exchanges: Sequence[Exchange]) -> str:
        """Send the spans of `exchanges`, which `worker` served; the reason if they will never be taken, or nothing.

        Raises:
            PenstockError: if they have to be offered again.
        """

    async def close(self) -> None:
        """Close the connections."""


class TraceSink:
    """The traces of sampled exchanges."""

    def __init__(self, carrier: Carrier, sampling: Sampling, dead: DeadLetters) -> None:
        self.tally = Tally()
        self._carrier = carrier
        self._sampling = sampling
        self._dead = dead

    @property
    def name(self) -> str:
        """The carrier's."""
        return self._carrier.name

    async def positions(self) -> dict[str, Position] | None:
        """The saved offsets count."""
        return None

    async def send(self, worker: str, batch: Batch) -> None:
        """Send what is sampled of it.

        Raises:
            PenstockError: if the sink did not take it all.
            OSError: if what it refuses cannot be written down.
        """
        every = [record for _, record in batch.records() if isinstance(record, Exchange)]
        chosen = [one for one in every if is_sampled(one, trace_of(one), self._sampling)]
        letters: list[DeadLetter] = []

        async def offer(part: Sequence[Exchange]) -> str:
            return await self._carrier.offer(worker, part)

        for begin in range(0, len(chosen), PART):
            for exchange, reason in await in_halves(chosen[begin : begin + PART], offer):
                told = msgspec.structs.replace(exchange, content=None)
                record = msgspec.Raw(msgspec.json.encode(told))
                letters.append(DeadLetter(id=exchange.id, reason=reason, record=record))
        bury(letters, len(chosen), self.name, self._dead, self.tally)
        self.tally.unsampled += len(every) - len(chosen)

    async def close(self) -> None:
        """Close the connections."""
        await self._carrier.close()
