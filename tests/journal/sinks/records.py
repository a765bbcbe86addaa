"""Exchanges of every kind, and journals that hold them."""

from pathlib import Path

from hypothesis import strategies as st

from penstock.core.engine_phases import EnginePhases
from penstock.core.exchange import Exchange, Finding, Observation, Phases, Record, Try, Usage
from penstock.journal.writer import Bounds, JournalWriter
from tests.journal.records import exchange

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PARENT = "00f067aa0ba902b7"

WORDS = st.text(max_size=12)
SPANS = st.binary(min_size=8, max_size=8).filter(any).map(bytes.hex)
TRACES = st.builds(
    "00-{}-{}-{}".format,
    st.binary(min_size=16, max_size=16).filter(any).map(bytes.hex),
    SPANS,
    st.sampled_from(["00", "01", "02", "03"]),
)
PHASES = st.builds(Phases, *[st.integers(0, 20_000_000_000) for _ in range(6)])
ENGINES = st.none() | st.builds(EnginePhases, *[st.integers(0, 5_000_000_000) for _ in range(5)])
_MOMENTS = st.integers(0, 20_000_000_000)
TRIES = st.builds(
    Try, st.sampled_from(["failed", "hedge", "broken", "unconvincing"]), WORDS, WORDS, _MOMENTS, _MOMENTS, WORDS
)
FINDINGS = st.builds(Finding, rule=WORDS, action=WORDS, where=st.sampled_from(["input", "output"]), count=st.just(2))
EXCHANGES = st.builds(
    Exchange,
    id=st.integers(0, 10**20).map(lambda n: f"req_{n:026d}"),
    at=st.floats(1.0, 4e9),
    operation=st.sampled_from(["chat", "completions", "embeddings", "responses"]),
    tenant=WORDS,
    user=WORDS,
    session=WORDS,
    model=WORDS,
    version=WORDS,
    stream=st.booleans(),
    status=st.sampled_from([0, 200, 400, 429, 500, 502]),
    outcome=st.sampled_from(["ok", "refused", "error", "cancelled", "truncated", "crashed"]),
    error=WORDS,
    finish=WORDS,
    phases=PHASES,
    usage=st.builds(Usage, *[st.integers(0, 10**6) for _ in range(3)]),
    cost_nanousd=st.integers(0, 10**12),
    hedged=st.booleans(),
    findings=st.lists(FINDINGS, max_size=2).map(tuple),
    trace=st.just("") | TRACES | WORDS,
    parent=st.just("") | SPANS | WORDS,
    engine=ENGINES,
    resumed=st.integers(0, 1),
    tries=st.lists(TRIES, max_size=2).map(tuple),
)
TOLD = st.builds(
    Observation,
    id=WORDS,
    at=st.floats(-7e10, 3e11),
    received=st.floats(1.0, 4e9),
    kind=st.sampled_from(["feedback", "event", "report", "preference"]),
    tenant=WORDS,
    rating=st.none() | st.floats(-1e12, 1e12),
    success=st.none() | st.booleans(),
    text=st.text(max_size=40),
    corrected=st.text(max_size=40),
)


def served(number: int, **changes: object) -> Exchange:
    """One that a model answered."""
    phases = Phases(30_000, 60_000, 90_000, 20_000_000, 100_000_000, 100_100_000)
    return exchange(number, **{"phases": phases, "model": "bot", "version": "bot:v1", **changes})


def journal(folder: Path, records: list[Record], *, segment_bytes: int = 1_000_000) -> Path:
    """`folder`, with `records` in the journal of a worker w."""
    writer = JournalWriter.open(
        folder / "w", "w", loop=None, clock=lambda: 1.0, bounds=Bounds(segment_bytes=segment_bytes)
    )
    for n, record in enumerate(records):
        writer.append(record)
        if n % 50 == 49:
            writer.flush()  # a segment ends between two writes
    writer.flush()
    writer.close()
    return folder
