"""A disk that fills under a gateway worker: requests go on, or are refused under strict audit, and what is lost is counted to the last record."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from penstock.core.snapshot import Policy, TenantEntry
from tests.gateway.house import KEY, OTHER, House, running
from tests.gateway.raw_client import Got, ask, chat, post
from tests.gateway.small_disk import small_disk

TENANTS = (TenantEntry(name="acme"), TenantEntry(name="other", policy="strict"))


async def told(house: House, name: str) -> float:
    """A number of the worker's own metrics."""
    got = await ask(house.port, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
    (line,) = [line for line in got.body.decode().splitlines() if line.startswith(name)]
    return float(line.rpartition(" ")[2])


async def asked(house: House, count: int, key: str = KEY) -> list[Got]:
    """`count` whole answers and as many streams."""
    found: list[Got] = []
    for number in range(count):
        found += await asyncio.gather(
            ask(house.port, chat(f"whole {number}", key=key)),
            ask(house.port, chat(f"stream {number}", stream=True, key=key)),
        )
    return found


@pytest.mark.parametrize("mounted", [True, False], ids=["a file system", "a bound on files"])
async def test_the_loss_is_counted_to_the_last_record(tmp_path: Path, *, mounted: bool) -> None:
    with small_disk(tmp_path / "journal", mounted=mounted) as disk:
        if disk is None:
            pytest.skip("no file system may be mounted here")
        async with running(tmp_path, policies=(Policy(name="strict", audit="strict"),)) as house:
            house.take(tenants=TENANTS)
            counts = house.worker.gateway.journal.counts
            assert [got.status for got in await asked(house, 4)] == [200] * 8
            assert [got.status for got in await asked(house, 2, OTHER)] == [200] * 4
            await house.settled()
            kept = len(house.records())
            assert (counts.records, counts.lost) == (kept, 0) == (18, 0), "a stream has an opening, too"

            known = house.exchanges()[0].id
            disk.fill()
            answers = await asked(house, 20)
            assert [got.status for got in answers] == [200] * 40, "under buffered audit requests go on"
            assert all(got.whole for got in answers)
            await house.settled()
            written = len(house.records()) - kept  # into what was left of the last page
            assert written < 4
            assert counts.lost == 60 - written
            assert await told(house, "penstock_journal_lost_records_total") == 60 - written

            refused = await asked(house, 3, OTHER)
            assert {got.status for got in refused} == {503}, "under strict audit they are refused"
            assert all("audit" in got.error["message"] and got.headers[b"retry-after"] for got in refused)
            assert not [one for one in house.mock.bodies[-2:] if b'"stream 2"' in one and b"other" in one]
            await house.settled()
            every = counts.records + counts.lost
            assert every == 18 + 60 + 6, "each refusal is a record, too"
            for number in range(50):  # the first may find room in what is left of the last page
                stored, body = counts.records, {"id": f"r{number}", "request_id": known, "reason": "wrong"}
                got = await ask(house.port, post("/v1/reports", msgspec.json.encode(body)))
                assert (got.status == 200) == (counts.records > stored), "nobody is thanked for what is lost"
                if got.status == 503:
                    break
            assert got.status == 503

            disk.free()
            before = counts.lost
            deadline = asyncio.get_running_loop().time() + 20
            while (await asked(house, 1, OTHER))[0].status != 200:
                assert asyncio.get_running_loop().time() < deadline, (
                    "a strict tenant is served again when there is room"
                )
                await asyncio.sleep(0.05)
            recovered = counts.lost
            assert [got.status for got in await asked(house, 3)] == [200] * 6
            await house.settled()
            assert counts.lost == recovered >= before
            ids = [one.id for one in house.exchanges()]
            assert len(ids) == len(set(ids))
