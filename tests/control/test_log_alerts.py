"""Log alerts as control raises them: from the ingested records, on the page of all alerts, once for each time."""

from __future__ import annotations

from pathlib import Path

import msgspec

from penstock.control.ingest.reader import ingest
from penstock.control.watch.alerts import Alert
from penstock.control.watch.log_alerts import LogAlerts
from penstock.core.exchange import Exchange
from penstock.journal.format import Position, encode_frame
from penstock.journal.log_rules import TABLE, Record
from penstock.store.sql import Database
from tests.control.house import House, running_house
from tests.deploy.log_cases import CASES, NOW, firing, silent


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Source:
    """One worker's journal, sent to control."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._offset = 64
        self._number = 0

    async def send(self, records: list[Record]) -> None:
        """Each under an id of its own."""
        told = []
        for record in records:
            self._number += 1
            name = f"req_{self._number:026d}" if isinstance(record, Exchange) else f"told-{self._number}"
            told.append(encode_frame(msgspec.structs.replace(record, id=name)))
        body = b"".join(told)
        end = self._offset + len(body)
        await ingest(self._house.control, "w", Position(1, self._offset), Position(1, end), body)
        self._offset = end


async def listed(house: House, state: str) -> dict[str, list[str]]:
    """Groups by the alert's name, as the API tells."""
    found: dict[str, list[str]] = {}
    for one in await house.get(f"/alerts?state={state}&limit=1000"):
        found.setdefault(one["name"], []).append(one["labels"].get("group", ""))
    return found


async def test_each_fires_and_ends_and_is_told_once(database: Database, tmp_path: Path) -> None:
    clock = Clock()
    async with running_house(database, tmp_path, clock=clock) as house:
        heard: list[Alert] = []
        house.control.alerted.append(heard.append)
        source, watching = Source(house), LogAlerts(house.control)
        await watching.step()
        for name in CASES:
            await source.send(firing(name))
        for _ in range(3):
            await watching.step()
        expected = {name: [case[2]] for name, case in CASES.items()}
        expected["PenstockLogTenantFails"] = ["acme"]
        assert await listed(house, "firing") == expected
        assert sorted(one.name for one in heard) == sorted(expected)
        told = {one["name"]: one for one in await house.get("/alerts?state=firing")}
        assert told["PenstockLogTenantFails"]["tenant"] == "acme"
        assert (
            told["PenstockLogTenantFails"]["summary"]
            == "20 or more requests of the tenant acme failed within 5 minutes."
        )
        assert told["PenstockLogTenantFails"]["runbook"] == "docs/runbooks/availability-burn.md"
        metrics = (await house.admin.get("/metrics")).text
        assert all(f'penstock_log_alerts_firing{{alert="{name}"}} 1.0' in metrics for name in CASES)

        again = LogAlerts(house.control)  # another process, or the same one after a restart
        await again.step()
        assert await listed(house, "firing") == expected
        assert len(heard) == len(expected)

        clock.now = NOW + 3700
        await again.step()
        assert await listed(house, "firing") == {}
        assert await listed(house, "resolved") == expected
        assert len(heard) == 2 * len(expected)
        assert 'penstock_log_alerts_firing{alert="PenstockLogSlow"} 0.0' in (await house.admin.get("/metrics")).text


async def test_what_comes_near_fires_nothing(sqlite: Database, tmp_path: Path) -> None:
    clock = Clock()
    async with running_house(sqlite, tmp_path, clock=clock) as house:
        source = Source(house)
        for number, alert in enumerate(TABLE):
            for why, records in silent(alert.name).items():
                clock.now += 2 * 3600  # beyond what the ones before can be counted in
                later = clock.now - NOW
                await source.send([moved(one, later) for one in records])
                await LogAlerts(house.control, (alert,)).step()
                assert await listed(house, "firing") == {}, (alert.name, why)
            clock.now += 2 * 3600
            await source.send([moved(one, clock.now - NOW) for one in firing(alert.name)])
            await LogAlerts(house.control, (alert,)).step()
            assert list(await listed(house, "firing")) == [alert.name], "and yet it can"
            clock.now += 2 * 3600
            await LogAlerts(house.control, (alert,)).step()
            assert len(await listed(house, "resolved")) == number + 1


def moved(record: Record, by: float) -> Record:
    if isinstance(record, Exchange):
        return msgspec.structs.replace(record, at=record.at + by)
    return msgspec.structs.replace(record, at=record.at + by, received=record.received + by)
