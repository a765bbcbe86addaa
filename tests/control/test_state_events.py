"""Changes of state go to Elasticsearch and stdout: from the audit trail of a control that is served, into a server that refuses what does not fit."""

import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.control.watch.processes import Restarts
from penstock.control.watch.rotation import HEARD_S, Rotation
from penstock.control.watch.state_events import read_events
from penstock.core.errors import PenstockError
from penstock.core.reports import Report
from penstock.journal.control_client import ControlClient
from penstock.journal.elastic import ElasticSink
from penstock.journal.event_carrier import ControlEvents, EventCarrier
from penstock.journal.lines import LinesSink
from penstock.journal.refusals import DeadLetters
from penstock.runtime.port import RunningProcess
from tests.control.house import TOKEN, House, LocalServers
from tests.control.test_serve import make_starter, ready, served
from tests.journal.sinks.elastic_server import Elastic

STREAM = "logs-penstock.event-default"


async def carry(carrier: EventCarrier, faults: int = 0) -> int:
    """Carry all there is; how many attempts failed."""
    failed = 0
    while True:
        try:
            if not await carrier.step():
                return failed
        except PenstockError:
            failed += 1
            assert failed <= faults


async def change_much(client: httpx.AsyncClient, token: str) -> str:
    """A promotion, a policy changed and removed, a key, an alert; gives the key, which nobody may see."""
    posted = await client.post(
        "/api/v1/promote?wait=30", json={"model": "support-bot", "label": "v1.0.0", "reason": "r"}
    )
    assert posted.status_code == 201, posted.text
    for mode in ("none", "masked"):
        put = await client.put("/api/v1/policies/house", json={"name": "house", "spec": {"capture": mode}})
        assert put.is_success, put.text
    assert (await client.delete("/api/v1/policies/house")).is_success
    assert (await client.put("/api/v1/tenants/acme", json={"name": "acme"})).is_success
    key = await client.post("/api/v1/keys", json={"tenant": "acme", "name": "shop", "roles": ["developer"]})
    assert key.is_success, key.text
    alert = {"status": "firing", "fingerprint": "f", "labels": {"alertname": "PenstockQueue", "severity": "page"}}
    notice = {"version": "4", "alerts": [{**alert, "startsAt": "2026-01-01T00:00:00Z"}]}
    for status in ("firing", "firing", "resolved"):
        notice["alerts"][0]["status"] = status  # type: ignore[index]
        told = await client.post("/api/v1/alerts", json=notice, headers={"authorization": f"Bearer {token}"})
        assert told.status_code == 200, told.text
    return str(key.json()["key"])


async def test_a_promotion_is_a_document_and_what_comes_twice_is_there_once(tmp_path: Path) -> None:
    data, runtime, elastic = tmp_path / "data", LocalServers(), Elastic()
    url = await elastic.start()
    async with served(data, runtime, starter=make_starter(tmp_path / "starter")) as client:
        await ready(client)
        client.headers["authorization"] = f"Bearer {(data / 'admin.key').read_text().strip()}"
        secret = await change_much(client, (data / "monitoring.token").read_text().strip())
        sink = ElasticSink(url, DeadLetters(tmp_path / "dead.ndjson"), pause_s=0.001)
        control = ControlClient(str(client.base_url), TOKEN)
        source = ControlEvents(control)
        faults: list[int | str | None] = ["silent", 503, None]
        elastic.fault = lambda: faults.pop(0) if faults else None
        first = EventCarrier(sink, source, tmp_path / "ship")
        assert await carry(first, faults=3) >= 1
        assert elastic.repeats, "the silent one had been taken"
        sent = len(elastic.lines)
        await carry(EventCarrier(sink, source, tmp_path / "ship"))
        assert len(elastic.lines) == sent, "another carrier goes on where the first one ended"
        (tmp_path / "ship" / "elasticsearch" / "@events.json").unlink()  # killed before it could save
        await carry(EventCarrier(sink, source, tmp_path / "ship"))
        audit = (await client.get("/api/v1/audit?limit=1000")).json()
        stream = io.BytesIO()
        await carry(EventCarrier(LinesSink(stream), source, tmp_path / "ship"))
        await control.close()
    await sink.close()
    await elastic.stop()
    documents = list(elastic.documents[STREAM].values())
    assert sorted(one["event"]["sequence"] for one in documents) == sorted(one["sequence"] for one in audit)
    assert (sink.tally.dead, first.behind, first.counts.records) == (0, 0, len(documents))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {one["event"]["id"]: one for one in lines} == elastic.documents[STREAM]
    assert not any(secret.encode() in line or b'"rules"' in line for line in elastic.lines)
    check_documents(documents, audit)


def check_documents(documents: list[dict[str, Any]], audit: list[dict[str, Any]]) -> None:
    by_action: dict[str, list[dict[str, Any]]] = {}
    for one in sorted(documents, key=lambda one: int(one["event"]["sequence"])):
        by_action.setdefault(one["event"]["action"], []).append(one)
    starter, promoted = by_action["deployment.promote"]
    assert promoted["user"] == {"name": "admin"}
    assert promoted["event"]["outcome"] == "success"
    assert promoted["event"]["category"] == ["configuration"]
    assert promoted["penstock"]["change"]["label"] == "v1.0.0"
    detail = next(one["detail"] for one in audit if one["sequence"] == promoted["event"]["sequence"])
    assert promoted["penstock"]["change"]["after"] == detail["digest"]
    assert promoted["penstock"]["change"]["before"] == starter["penstock"]["change"]["after"] != detail["digest"]
    first, second = (one["penstock"]["change"] for one in by_action["policy.put"] if "house" in one["message"])
    (gone,) = (one["penstock"]["change"] for one in by_action["policy.delete"])
    assert "before" not in first
    assert first["after"] == second["before"] != second["after"] == gone["before"]
    assert "after" not in gone
    assert by_action["key.create"][-1]["event"]["category"] == ["iam"]
    assert by_action["key.create"][-1]["organization"] == {"id": "acme"}
    (begun,), (ended,) = by_action["alert.begin"], by_action["alert.end"]
    assert begun["event"]["kind"] == ended["event"]["kind"] == "alert"
    assert begun["penstock"]["change"]["subject"] == "PenstockQueue"
    assert "replica.publish" in by_action


class Supervised:
    """What a supervisor would tell."""

    def __init__(self) -> None:
        self.told: tuple[RunningProcess, ...] = ()

    async def processes(self) -> tuple[RunningProcess, ...]:
        return self.told


def process(name: str, restarts: int) -> RunningProcess:
    return RunningProcess(name=name, kind="gateway", restarts=restarts, since=100.0 + restarts, last_exit="killed")


async def actions(house: House, *wanted: str) -> list[tuple[str, str, int]]:
    told = await read_events(house.control, 0, 1000)
    return [(one.action, one.subject, one.restarts) for one in told.events if one.action in wanted]


async def test_a_restart_is_told_once_whoever_looks(house: House) -> None:
    supervised = Supervised()
    one = Restarts(house.control, supervised)
    supervised.told = (process("gateway-0", 0), process("ship", 0))
    assert await one.look() == 0
    supervised.told = (process("gateway-0", 1), process("ship", 0))
    assert (await one.look(), await one.look()) == (1, 0)
    supervised.told = (process("gateway-0", 3), process("ship", 1))
    another = Restarts(house.control, supervised)  # of a control that was killed and started again
    assert (await another.look(), await one.look()) == (2, 0)
    expected = [("gateway-0", 1), ("gateway-0", 3), ("ship", 1)]
    assert await actions(house, "process.restart") == [("process.restart", *each) for each in expected]


@pytest.fixture
def reports() -> list[Report]:
    return []


async def test_a_replica_goes_out_with_the_first_worker_and_comes_back_with_the_last(
    small_house: House, reports: list[Report]
) -> None:
    now = [1000.0]
    small_house.control.clock = lambda: now[0]
    one = Rotation(small_house.control, lambda: reports)

    def tell(worker: str, *out: str) -> None:
        reports.append(Report(worker=worker, at=now[0], out=out))

    tell("gateway-0", "bot/bot-0")
    assert await one.look() == 0, "not all have told a control that has just started"
    now[0] += HEARD_S
    reports.clear()
    tell("gateway-0", "bot/bot-0")
    tell("gateway-1", "bot/bot-0", "bot/bot-1")
    assert (await one.look(), await one.look()) == (2, 0)
    reports.pop()
    tell("gateway-1")
    assert await one.look() == 1
    again = Rotation(small_house.control, lambda: reports)
    now[0] += 2 * HEARD_S  # the workers are gone: nothing that is known is left out
    assert await again.look() == 1
    told = [(action, subject) for action, subject, _ in await actions(small_house, "replica.out", "replica.back")]
    assert told == [
        ("replica.out", "bot/bot-0"),
        ("replica.out", "bot/bot-1"),
        ("replica.back", "bot/bot-1"),
        ("replica.back", "bot/bot-0"),
    ]
    events = (await read_events(small_house.control, 0, 1000)).events
    first = next(event for event in events if event.action == "replica.out")
    assert first.facts == {"pool": "bot", "worker": "gateway-0, gateway-1"}
