"""A design that declares everything, the records of an experiment of that kind, and what gateways are told of it."""

import random
from typing import Any

import msgspec

from penstock.control.experiments.life import experiment_entries
from penstock.core.exchange import Observation, Phases, Record
from penstock.core.snapshot import ExperimentEntry
from tests.control.bed import AB, T0, Bed, assigned, feedback

SHOP = {
    "metrics": [
        {"name": "revenue", "event": "purchase", "type": "mean", "unit": "EUR"},
        {"name": "basket_p90", "event": "purchase", "type": "quantile", "quantile": 0.9, "unit": "EUR"},
    ],
    "winsorise": {"revenue": [0, 100]},
    "primary": {"metric": "revenue", "minimum_effect": 1.0},
    "plan": {"units": 200, "deviation": 10},
}
EVERYTHING = AB | {
    "guardrails": [{"metric": "error_rate"}, {"metric": "latency_p95"}, {"metric": "success"}],
    "metrics": SHOP["metrics"],
    "winsorise": SHOP["winsorise"],
    "stratify": {"by": "stream", "values": ["true"]},
    "covariate": {"metric": "cost"},
    "bayes": {"deviation": 0.1},
    "plan": {"units": 40, "inference": "group_sequential", "looks": 3},
}


async def entry_of(bed: Bed, route: str = "bot") -> ExperimentEntry:
    async with bed.control.database.read() as connection:
        return (await experiment_entries(connection))[route]


def event(number: int, name: str, value: float | None = None, **changes: Any) -> Observation:
    base: dict[str, Any] = {
        "id": f"{name}-{number}",
        "at": T0 + 50,
        "received": T0 + 50,
        "kind": "event",
        "tenant": "a",
        "name": name,
        "value": value,
        "request": f"req_{number:06d}",
    }
    return Observation(**base | changes)


def history(entry: Any) -> list[Record]:
    """Requests of users, with what is told of them early, late, twice and wrongly."""
    rng = random.Random(12)
    records: list[Record] = []
    for number in range(240):
        (one,) = assigned(entry, [number % 90], T0)
        took = int(rng.lognormvariate(0, 0.5) * 1e8)
        records.append(
            msgspec.structs.replace(
                one,
                id=f"req_{number:06d}",
                at=T0 + number,
                stream=rng.random() < 0.4,
                outcome="error" if rng.random() < 0.1 else "ok",
                phases=Phases(1, 2, 3, took // 3, took, took),
                cost_nanousd=rng.randrange(5000),
            )
        )
        about = rng.randrange(240)
        records.append(feedback(about, id=f"f{number}", success=rng.random() < 0.6))
        records.append(
            event(about, "purchase", rng.choice((5.0, -3.0, float("nan"), 1e12, None, 80.0)), id=f"p{number}")
        )
    return records
