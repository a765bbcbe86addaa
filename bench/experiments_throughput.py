"""How quickly observations become statistics, in CPU time of one core; and that a replay gives the same verdict, bit for bit."""

import gc
import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np

from bench.checks import Check, Measured
from penstock.control.experiments.replay import Epoch, Replay, Told
from penstock.control.ingest.reader import records_of
from penstock.core.exchange import Exchange, Observation, Phases, Record, Usage
from penstock.experiments.columns import Tally, histogram_of
from penstock.experiments.counted import Statistics, UnitRecord
from penstock.experiments.design import parse_design
from penstock.experiments.fold import Folding
from penstock.experiments.metrics import told
from penstock.journal.format import encode_frame

BATCH = 4_096  # records, as the shipper sends them
DESIGN = parse_design(
    {
        "strategy": "ab",
        "route": "bot",
        "arms": [{"name": "control", "pool": "a"}, {"name": "treatment", "pool": "b"}],
        "primary": {"metric": "success", "minimum_effect": 0.05},
        "guardrails": [{"metric": "error_rate"}, {"metric": "latency_p95"}],
    }
)


@contextmanager
def as_in_control() -> Iterator[None]:
    """The collector as control sets it."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def from_arrays(seed: int, part: float) -> Measured:
    """Unit, arm, numerator and denominator of each observation, in batches of 100,000; moments after each batch, a histogram of all."""
    rng = np.random.default_rng(seed)
    count, batch = max(200_000, round(4_000_000 * part)), 100_000
    units = rng.integers(0, count // 8, count)
    arms, tops = units % 2, (rng.lognormal(0, 1, count) * 1e9).astype(np.int64)
    bottoms = np.ones(count, np.int64)
    began = time.process_time()
    tally = Tally(2)
    for at in range(0, count, batch):
        rows = slice(at, at + batch)
        tally.add(units[rows], arms[rows], tops[rows], bottoms[rows])
        moments = tally.moments()
    histogram = histogram_of(tops)
    rate = count / (time.process_time() - began)
    right = sum(one.bottom for one in moments) == count == sum(histogram.values())
    return Measured(f"{rate / 1e6:.1f} million a second", right and (rate >= 1e6 or part < 1))


def journal(seed: int, count: int, batch: int = BATCH) -> Iterator[bytes]:
    """Frames of `count` records, batch by batch: exchanges of users, and feedback on a tenth of them."""
    rng = random.Random(seed)
    frames: list[bytes] = []
    for number in range(count):
        user = rng.randrange(count // 4 + 1)
        frames.append(encode_frame(_record(rng, number, user)))
        if len(frames) == batch:
            yield b"".join(frames)
            frames = []
    yield b"".join(frames)


def _record(rng: random.Random, number: int, user: int) -> Record:
    if number % 11 == 10:
        said: dict[str, Any] = {"success": rng.random() < 0.7}
        about = f"req_{number - 1 - rng.randrange(min(9, number)):026d}"
        return Observation(
            id=f"f{number}",
            at=number / 100,
            received=number / 100,
            kind="feedback",
            tenant="acme",
            request=about,
            **said,
        )
    took = int(rng.lognormvariate(0, 0.5) * 4e8)
    return Exchange(
        id=f"req_{number:026d}",
        at=number / 100,
        worker="host-1",
        tenant="acme",
        key="key_01hv0000000000000000000000",
        user=f"{user:032x}",
        model="bot",
        route="bot",
        experiment="e",
        arm="treatment" if user % 2 else "control",
        epoch=1,
        propensity=0.5,
        unit=f"{user:032x}",
        pool="bot-int8",
        replica="r1",
        version="bot:v1.0.0",
        digest="sha256:" + "ab" * 32,
        stream=number % 2 == 0,
        status=200,
        outcome="error" if rng.random() < 0.01 else "ok",
        finish="stop",
        phases=Phases(60_000, 400_000, 500_000, took // 4, took, took + 90_000),
        usage=Usage(34, 27),
        chunks=27,
        cost_nanousd=12_200,
        trace="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        generation=4,
    )


class Reader:
    """Journal bytes into statistics, without tables: what is left of ingest when nothing is stored."""

    def __init__(self) -> None:
        self.statistics = Statistics(shares={1: DESIGN.shares()})
        self._folding = Folding(DESIGN, self.statistics, in_batches=True)
        self._units: dict[str, UnitRecord] = {}
        self._of: dict[str, UnitRecord] = {}
        self.records = 0

    def take(self, body: bytes) -> None:
        """One batch of frames."""
        for record, _ in records_of(body):
            self.records += 1
            if isinstance(record, Exchange):
                unit = self._units.get(record.unit)
                if unit is None:
                    unit = self._units[record.unit] = UnitRecord(arm=record.arm, first_at=record.at, values={}, bad={})
                self._of[record.id] = unit
                self._folding.exposed(unit, record, self.records)
            elif isinstance(record, Observation) and record.request in self._of:
                for name, numerator in told(record):
                    self._folding.told(self._of[record.request], 1, name, numerator, self.records)
        self._folding.settle()

    def observations(self) -> int:
        """Values that have been counted."""
        sums = sum(one.bottom for (_, _, name), one in self.statistics.moments.items() if name != "tokens_per_second")
        return sum(sum(one.values()) for one in self.statistics.histograms.values()) + sums


def from_journal(seed: int, part: float) -> Measured:
    """Decoding, checksums, attribution, folding."""
    count = max(8_000, round(300_000 * part))
    batches = list(journal(seed, count))
    reader = Reader()
    with as_in_control():
        reader.take(batches[0])  # imports, caches
        rest, before, values = 0.0, reader.records, reader.observations()
        for body in batches[1:]:
            began = time.process_time()
            reader.take(body)
            rest += time.process_time() - began
    records, observations = reader.records - before, reader.observations() - values
    return Measured(
        f"{observations / rest / 1e3:,.0f} thousand a second, of {records / rest / 1e3:.0f} thousand records",
        observations / rest >= 1e5 or part < 1,
    )


def replayed(seed: int, part: float) -> Measured:
    """The same records twice, by what `penstock experiments replay` runs, in batches of different sizes, with a verdict after every hundredth of them."""
    count = max(2_000, round(1_000_000 * part))
    verdicts = []
    began = time.process_time()
    for wanted in (1, 7):
        folding = Replay("e", DESIGN, [Epoch(1, DESIGN.shares(), None, 0.0)])
        said: list[bytes] = []
        held: list[tuple[Told, int]] = []
        sequence = 0
        for number, body in enumerate(journal(seed, count, BATCH if part == 1 else 100), 1):
            for record, _ in records_of(body):
                sequence += 1
                if isinstance(record, Told):
                    held.append((record, sequence))
            if number % wanted == 0:
                folding.take(held)
                held = []
            if number % 14 == 0:
                said.append(msgspec.json.encode(folding.verdict(float(number))))
        folding.take(held)
        said.append(msgspec.json.encode(folding.verdict(float(count))))
        said.append(msgspec.json.encode(sorted(folding.statistics_at(math.inf).moments.items())))
        verdicts.append(said)
    rate = 2 * count / (time.process_time() - began)
    return Measured(
        f"{len(verdicts[0]) - 1} verdicts over {count:,} records, {rate / 1e3:.0f} thousand a second",
        verdicts[0] == verdicts[1],
    )


CHECKS = [
    Check("throughput: decoded arrays into statistics", "1,000,000 observations/s a core", from_arrays, 201),
    Check("throughput: journal bytes into statistics", "100,000 observations/s a core", from_journal, 202),
    Check("replay: the same verdicts bit for bit", "all equal", replayed, 203, slow=True),
]
