"""Content goes nowhere but into the journal and to control: whatever else a sink makes of a record, it makes without it."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from penstock.core.exchange import Content, Exchange
from penstock.journal.analytics.tables import COLUMNS
from penstock.journal.ecs import document_of
from penstock.journal.reader import JournalReader
from penstock.journal.refusals import DeadLetters
from penstock.journal.sampling import Sampling
from penstock.journal.spans import spans_of
from penstock.journal.traces import TraceSink
from tests.journal.sinks.records import TRACE, journal, served

KEPT = Content("ab" * 16, b"sealed" * 10, masked=True)


def pairs() -> list[tuple[Exchange, Exchange]]:
    """Records with content, and the same without."""
    made = [served(number, trace=TRACE if number % 2 else "") for number in range(20)]
    return [(msgspec.structs.replace(one, content=KEPT), one) for one in made]


def test_documents_spans_and_rows_are_the_same_with_and_without() -> None:
    for kept, bare in pairs():
        assert document_of(kept, 1.0) == document_of(bare, 1.0)
        assert spans_of(kept) == spans_of(bare)
        for column in COLUMNS["exchanges"]:
            assert column.read(kept) == column.read(bare)


class Refusing:
    """A collector that takes nothing of what has an odd number."""

    name = "otlp"

    async def offer(self, _worker: str, exchanges: Sequence[Exchange]) -> str:
        return "no" if any(int(one.id[-3:]) % 2 for one in exchanges) else ""

    async def close(self) -> None: ...


async def test_dead_letters_have_none(tmp_path: Path) -> None:
    journal(tmp_path / "journal", [kept for kept, _ in pairs()])
    sink = TraceSink(Refusing(), Sampling(), DeadLetters(tmp_path / "dead"))
    (worker,) = (tmp_path / "journal").iterdir()
    batch = JournalReader(worker).read()
    assert batch is not None
    await sink.send("w", batch)
    letters = (tmp_path / "dead").read_bytes().splitlines()
    assert len(letters) == 10
    for line in letters:
        assert KEPT.key.encode() not in line
        assert msgspec.convert(msgspec.json.decode(line)["record"], Exchange).content is None
