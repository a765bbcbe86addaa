"""Control killed by SIGKILL while records come: what it has counted afterwards is what a control counts that was let alone, bit for bit."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import select

from penstock.control.experiments.life import experiment_entries
from penstock.control.experiments.store import load_statistics
from penstock.core.exchange import Exchange, Observation
from penstock.experiments.design import parse_design
from penstock.experiments.judging import judged
from penstock.journal.inspect import cat
from penstock.journal.ship import ControlSink, Shipper
from penstock.store import schema_drift, schema_engagement, schema_evaluators
from penstock.store import schema_experiments as tables
from penstock.store.sql import open_database
from tests.control.bed import T0
from tests.control.histories import EVERYTHING
from tests.system.killed_control import ControlProcess, DeadlySink, Writing

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]
SEED = 55
DEADLINE_S = 60.0
# One that is watched all the time and never decided, one whose looks are taken in the order of ingest while control dies.
WATCHED = EVERYTHING | {"guardrails": [{"metric": "latency_p95"}], "plan": {"units": 1_000_000, "deviation": 0.5}}
LOOKED_AT = EVERYTHING | {
    "route": "other",
    "guardrails": [{"metric": "latency_p95"}],
    "plan": {"units": 60, "inference": "group_sequential", "looks": 3},
}
LATER = LOOKED_AT | {"plan": LOOKED_AT["plan"] | {"units": 300}}
Specs = dict[str, dict[str, Any]]
# What is of control's own clock, and where in the journal the batch began that a row is from: batches are others.
LEFT_OUT = frozenset({"drift_groups.since", "engagement_minute.sequence"})
COMPARED = (
    tables.exchanges,
    tables.observations,
    tables.ingest_counts,
    tables.usage_minute,
    tables.experiment_units,
    tables.experiment_statistics,
    tables.experiment_layers,
    tables.experiment_looks,
    tables.experiment_guardrails,
    tables.experiment_past,
    schema_engagement.visits,
    schema_engagement.engagement_minute,
    schema_evaluators.evaluator_usage,
    schema_drift.drift_groups,
)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


def client(control: ControlProcess) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {control.secret('admin.key')}"}
    return httpx.AsyncClient(base_url=f"{control.url}/api/v1", headers=headers, timeout=60)


async def ready(control: ControlProcess) -> None:
    async with httpx.AsyncClient(base_url=control.url) as http, asyncio.timeout(DEADLINE_S):
        while True:
            try:
                if (await http.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                assert control.lives(), (control.data / "control.log").read_text()
            await asyncio.sleep(0.02)


async def experimenting(control: ControlProcess, specs: Specs) -> None:
    """Two routes with an experiment each that has begun."""
    await ready(control)
    async with client(control) as http:
        for path, body in (
            *(("/pools", {"name": name, "spec": {"adopt": ["http://127.0.0.1:9"]}}) for name in ("old", "new")),
            *(("/routes", {"name": name, "spec": {"to": [{"pool": "old"}]}}) for name in ("bot", "other")),
            *(("/experiments", {"name": name, "spec": spec}) for name, spec in specs.items()),
            *((f"/experiments/{name}/start", None) for name in specs),
        ):
            answer = await http.post(path, json=body)
            assert answer.is_success, answer.text


@asynccontextmanager
async def shipping(sink: ControlSink, shipper: Shipper) -> AsyncIterator[None]:
    task = asyncio.create_task(shipper.run())
    try:
        yield
    finally:
        shipper.stop()
        await task
        shipper.close()
        await sink.close()


async def killed(control: ControlProcess, sink: DeadlySink, shipper: Shipper, rng: random.Random) -> None:
    """One death and what begins after it: in the middle of a batch, at any moment, or while it is still starting."""
    how = rng.choices(("batch", "anywhere", "starting"), (6, 2, 1))[0]
    if how == "batch":
        sink.arm(rng.random())
        await until(lambda: not control.lives())
    elif how == "anywhere":
        await asyncio.sleep(rng.uniform(0.0, 1.0))
    control.kill()
    control.start()
    if how == "starting":
        await asyncio.sleep(rng.uniform(0.0, 0.4))
        control.kill()
        control.start()
    taken = shipper.counts.records
    await until(lambda: shipper.counts.records > taken)


async def counted(control: ControlProcess, specs: Specs) -> dict[str, Any]:
    """All that came of the records: the tables but for times of control's own, the statistics, and the verdicts on them."""
    database = await open_database(f"sqlite+aiosqlite:///{control.data / 'penstock.db'}")
    found: dict[str, Any] = {}
    try:
        async with database.read() as connection:
            for table in COMPARED:
                columns = [column for column in table.columns if str(column) not in LEFT_OUT]
                rows = await connection.execute(select(*columns).order_by(*table.primary_key))
                found[table.name] = [tuple(row) for row in rows]
            for name, spec in specs.items():
                statistics = await load_statistics(connection, name)
                found[name] = statistics
                found[f"verdict on {name}"] = msgspec.json.encode(judged(parse_design(spec), statistics, T0))
    finally:
        await database.close()
    return found


async def entries_of(control: ControlProcess) -> Any:
    database = await open_database(f"sqlite+aiosqlite:///{control.data / 'penstock.db'}")
    async with database.read() as connection:
        found = await experiment_entries(connection)
    await database.close()
    return sorted(found.items())


async def assert_replayed(control: ControlProcess, specs: Specs) -> None:
    """What is stored, its last verdict too, is what the stored records give."""
    async with client(control) as http:
        for name in specs:
            told = (await http.get(f"/experiments/{name}/replay", params={"verdicts": 3})).json()
            assert (told["equal"], told["differences"]) == (True, []), told["differences"]


@pytest.mark.parametrize("kills", [2, pytest.param(100, marks=pytest.mark.soak)])
async def test_a_killed_control_counts_what_one_counts_that_was_let_alone(
    tmp_path: Path, kills: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.journal.ship.LONGEST_PAUSE_S", 0.1)  # control is back sooner than under a supervisor
    specs = {"watched": WATCHED, "looked-at": LOOKED_AT if kills < 10 else LATER}
    journal, rng = tmp_path / "journal", random.Random(SEED)
    with ControlProcess(tmp_path / "calm") as calm, ControlProcess(tmp_path / "restless") as restless:
        await asyncio.gather(experimenting(calm, specs), experimenting(restless, specs))
        deadly = DeadlySink(restless, journal, tmp_path / "ship-restless")
        even = DeadlySink(calm, journal, tmp_path / "ship-calm")  # never armed
        shipper = Shipper(deadly, journal, tmp_path / "ship-restless", poll_s=0.05)
        other = Shipper(even, journal, tmp_path / "ship-calm", poll_s=0.7)  # its batches are others
        async with shipping(deadly, shipper), shipping(even, other):
            with Writing(journal / "gateway-0", await entries_of(restless), SEED):
                for _ in range(kills):
                    await killed(restless, deadly, shipper, rng)
            await until(lambda: shipper.lag() == other.lag() == 0)
        await ready(restless)
        await assert_replayed(restless, specs)
        calm.stop()
        restless.stop()
    one, two = await counted(calm, specs), await counted(restless, specs)
    for name in one:
        assert one[name] == two[name], name
    written = [record.id for _, _, record in cat(journal) if isinstance(record, Exchange | Observation)]
    assert len(one["exchanges"]) == sum(name.startswith("req") for name in written)
    assert len(one["observations"]) == len(set(written)) - len(one["exchanges"])
    assert {row[0] for row in one["experiment_units"]} == set(specs)
    assert deadly.cut or kills < 10
    print(
        f"{len(written)} records, {kills} kills, {deadly.cut} of them in a batch; {len(one['experiment_looks'])} looks"
    )
