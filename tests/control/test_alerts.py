"""Alerts: what Alertmanager tells is kept once for each time that one fired, however often and late it is told."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.control.watch.alerts import LATE_S, Alert, Told, fold, parse_notice
from penstock.core.errors import BadRequest
from tests.control.house import House

NOW = time.time()
NEVER = "0001-01-01T00:00:00Z"


def notice(*told: dict[str, Any], status: str = "firing") -> dict[str, Any]:
    """A body as Alertmanager sends it."""
    return {
        "version": "4",
        "groupKey": '{}:{alertname="PenstockPoolDown"}',
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "control",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "alerts": list(told),
    }


def at(seconds: float) -> str:
    """A time near now, as Go writes it."""
    return datetime.fromtimestamp(NOW + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f789Z")


def told(status: str = "firing", starts: str = "", ends: str = NEVER, **labels: str) -> dict[str, Any]:
    return {
        "status": status,
        "fingerprint": "f" + labels.get("pool", "a"),
        "labels": {"alertname": "PenstockPoolDown", "severity": "page", **labels},
        "annotations": {"summary": "No replica answers.", "runbook_url": "docs/runbooks/pool-down.md"},
        "startsAt": starts or at(-3600),
        "endsAt": ends,
        "generatorURL": "http://prometheus:9090/graph",
    }


async def tell(house: House, body: Any, status: int = 200) -> Any:
    token = (house.control.data / "monitoring.token").read_text().strip()
    async with house.client(token) as client:
        response = await client.post("/api/v1/alerts", json=body)
    assert response.status_code == status, response.text
    return response.json()


@pytest.fixture
async def monitored(house: House) -> House:
    async with house.client("none") as client:
        assert (await client.post("/api/v1/alerts", json=notice())).status_code == 401
    return house


async def test_an_alert_begins_is_repeated_and_ends(monitored: House) -> None:
    heard: list[Alert] = []
    monitored.control.alerted.append(heard.append)
    assert await tell(monitored, notice(told(pool="a"), told(pool="b"))) == {"changed": 2}
    assert await tell(monitored, notice(told(pool="a"))) == {"changed": 0}
    ended = told("resolved", ends=at(-3300), pool="a")
    assert await tell(monitored, notice(ended, status="resolved")) == {"changed": 1}
    assert await tell(monitored, notice(ended, status="resolved")) == {"changed": 0}
    assert await tell(monitored, notice(told(pool="a"))) == {"changed": 0}  # overtaken by its own end

    firing = await monitored.get("/alerts?state=firing")
    assert [(a["labels"]["pool"], a["notices"]) for a in firing] == [("b", 1)]
    over = (await monitored.get("/alerts?state=resolved"))[0]
    assert (over["labels"]["pool"], over["notices"]) == ("a", 3)
    assert over["ends_at"] - over["starts_at"] == pytest.approx(300, abs=0.001)
    assert over["runbook"] == "docs/runbooks/pool-down.md"
    assert [(a.labels["pool"], a.state) for a in heard] == [("a", "firing"), ("b", "firing"), ("a", "resolved")]

    assert await tell(monitored, notice(told(starts=at(-60), pool="a"))) == {"changed": 1}
    found = await monitored.get("/alerts")
    assert [a["labels"]["pool"] for a in found] == ["a", "b", "a"]
    text = (await monitored.admin.get("/metrics")).text
    assert 'penstock_alerts_firing{severity="page"} 2.0' in text


async def test_a_tenants_reader_sees_that_tenants_alerts_alone(small_house: House) -> None:
    async with small_house.client("none") as client:
        assert (await client.get("/api/v1/targets")).status_code == 401
    await small_house.post("/tenants", {"name": "shop", "spec": {}})
    await tell(small_house, notice(told(pool="a"), told(pool="b", tenant="shop"), told(pool="c", tenant="other")))
    key = await small_house.post("/keys", {"name": "reader", "tenant": "shop", "roles": ["analyst"]})
    async with small_house.client(key["key"]) as client:
        assert [a["tenant"] for a in (await client.get("/api/v1/alerts")).json()] == ["shop"]
        assert (await client.get("/api/v1/alerts/actions")).status_code == 403
    async with small_house.client(None) as client:
        assert (await client.get("/api/v1/alerts")).status_code == 401


async def test_control_tells_when_keys_end(small_house: House) -> None:
    await small_house.post("/tenants", {"name": "shop", "spec": {}})
    end = int(NOW) + 86400
    made = [
        await small_house.post("/keys", {"name": f"k{days}", "tenant": "shop", "expires_at": end + days * 86400})
        for days in (0, 1, 2)
    ]
    await small_house.post(f"/keys/{made[0]['id']}/revoke", status=200)
    text = (await small_house.admin.get("/metrics")).text
    told = [line for line in text.splitlines() if line.startswith("penstock_key_expires_timestamp_seconds{")]
    assert [float(line.split()[-1]) for line in told] == [end + 86400]
    assert 'tenant="shop"' in told[0]


async def test_what_is_no_notice_is_refused_whole(monitored: House) -> None:
    for body in ({}, {"version": "3", "alerts": []}, {"version": "4", "alerts": [{"status": "firing"}]}, [1]):
        assert (await tell(monitored, body, 400))["error"]["code"] == "invalid_value"
    with pytest.raises(BadRequest, match="max_alerts"):
        parse_notice(b'{"version":"4","alerts":[' + b",".join([_BYTES] * 1001) + b"]}")
    assert await monitored.get("/alerts") == []


_BYTES = b'{"status":"firing","fingerprint":"f","labels":{},"startsAt":"2026-03-01T10:00:00Z"}'


def one(status: str, start: int, end: int) -> Told:
    import msgspec

    stamp = "2026-03-01T10:{:02}:00Z".format
    return msgspec.convert(told(status, stamp(start), stamp(end) if status == "resolved" else NEVER), Told)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(21, 40), st.integers(1, 4)), max_size=6))
def test_an_alert_that_comes_back_with_its_old_start_fires_again(times: list[tuple[int, int, int]]) -> None:
    last: Alert | None = None
    now = 1772362800.0 + 7200
    for start, end, repeats in times:
        for _ in range(repeats):
            last = fold(last, one("firing", start, end), now)
            assert last is not None
            assert last.state == "firing"
            now += LATE_S + 1
        last = fold(last, one("resolved", start, end), now)
        assert last is not None
        assert last.ends_at is not None
        assert last.ends_at >= last.starts_at
        assert fold(last, one("resolved", start, end), now) is None
        assert fold(last, one("firing", start, end), now + LATE_S / 2) is None
        now += LATE_S + 1


async def test_engines_are_found_under_the_name_that_was_asked(small_house: House) -> None:
    from sqlalchemy import insert

    from penstock.store.schema import replicas

    async with small_house.control.database.write() as connection:
        for name, url in (("a", "http://127.0.0.1:8090"), ("b", "http://engine-7:8091"), ("c", "https://[fd00::1]")):
            await connection.execute(insert(replicas).values(id=f"p-{name}", pool="p", url=url, ready_at=1.0))
    async with small_house.client("none") as client:
        await client.get("/api/v1/targets")
    token = (small_house.control.data / "monitoring.token").read_text().strip()
    async with small_house.client(token) as client:
        found = (await client.get("/api/v1/targets", headers={"host": "penstock:8081"})).json()
    assert [one["targets"] for one in found] == [["penstock:8090"], ["engine-7:8091"], ["[fd00::1]:443"]]
    assert found[0]["labels"] == {"pool": "p", "replica": "p-a", "__scheme__": "http"}
