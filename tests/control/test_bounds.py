"""Nothing of one caller's grows without a bound: pushes, their bytes, evaluations, checks of everything, failed logins."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from penstock.control.bounds import Bounds
from penstock.control.logins import CONSOLE, Logins
from penstock.core.digests import sha256_digest
from penstock.core.errors import RateLimited
from penstock.core.settings import ControlSettings
from tests.control.house import House, version_files
from tests.control.test_gates import SUITE, desk, key_of

SMALL = ControlSettings(
    pushes_per_key=2, push_bytes_per_key=1 << 20, evaluations_per_key=3, checks_at_once=1, failed_logins_per_minute=5
)


@pytest.fixture
async def bounded(house: House) -> AsyncIterator[House]:
    control = house.control
    control.bounds = Bounds(SMALL, control.clock)
    control.logins = Logins(SMALL.failed_logins_per_minute, control.clock)
    yield house


async def begin(who: httpx.AsyncClient, label: str, size: int = 10, status: int = 201) -> dict[str, Any]:
    files = {"a.bin": {"digest": sha256_digest(label.encode()), "size": size}}
    answer = await who.post(
        "/api/v1/models/bot/uploads", json={"label": label, "files": files, "idempotency_key": label}
    )
    assert answer.status_code == status, answer.text
    if status == 429:
        assert int(answer.headers["retry-after"]) >= 1
    return dict(answer.json())


async def limited(house: House, name: str) -> float:
    text = (await house.admin.get("/metrics")).text
    [line] = [one for one in text.splitlines() if one.startswith(f'penstock_control_limited_total{{limit="{name}"}}')]
    return float(line.split()[-1])


async def test_pushes_under_way_are_counted_for_each_caller_and_can_be_given_up(bounded: House) -> None:
    house = bounded
    first = await begin(house.admin, "v1.0.0")
    await begin(house.admin, "v1.1.0")
    refused = await begin(house.admin, "v1.2.0", status=429)
    assert refused["error"]["code"] == "too_much_under_way"
    assert "control.pushes_per_key allows 2" in refused["error"]["message"]
    assert "penstock models pushes --give-up" in refused["error"]["hint"]
    await begin(house.admin, "v1.0.0")  # one that is under way goes on
    other = await key_of(house, "olga", "operator")
    await begin(other, "v1.2.0")
    assert [one["label"] for one in await house.get("/uploads")] == ["v1.1.0", "v1.0.0"]
    assert (await other.delete(f"/api/v1/uploads/{first['id']}")).status_code == 404
    assert (await house.admin.delete(f"/api/v1/uploads/{first['id']}")).status_code == 204
    await begin(house.admin, "v1.3.0")
    text = (await house.admin.get("/metrics")).text
    assert "penstock_pushes_under_way 3.0" in text
    assert "penstock_push_bytes_under_way 30.0" in text
    assert await limited(house, "pushes") == 1


async def test_bytes_under_way_are_counted_and_what_is_committed_is_under_way_no_more(bounded: House) -> None:
    house = bounded
    await begin(house.admin, "v1.0.0", size=(1 << 20) - 5)
    refused = await begin(house.admin, "v1.1.0", status=429)
    assert "10 more would exceed the 1048576" in refused["error"]["message"]
    assert await limited(house, "push_bytes") == 1
    [one] = await house.get("/uploads")
    assert (await house.admin.delete(f"/api/v1/uploads/{one['id']}")).status_code == 204
    for number in range(4):
        await house.push("bot", f"v2.{number}.0")
    assert await house.get("/uploads") == []
    gone = await house.admin.delete(f"/api/v1/uploads/{one['id']}")
    assert gone.status_code == 404


async def test_pushes_that_begin_at_once_do_not_slip_through_together(bounded: House) -> None:
    answers = await asyncio.gather(
        *(
            bounded.admin.post(
                "/api/v1/models/bot/uploads",
                json={
                    "label": f"v1.{number}.0",
                    "files": {"a.bin": {"digest": sha256_digest(b"a"), "size": 1}},
                    "idempotency_key": str(number),
                },
            )
            for number in range(12)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [201, 201, *[429] * 10]


async def test_evaluations_are_bounded_by_caller_and_callers_take_turns(bounded: House) -> None:
    house = bounded
    await house.push("bot", "v1.0.0", version_files("a"))
    await house.post("/suites", {"name": "questions", "lines": SUITE})
    olga = await key_of(house, "olga", "operator")

    async def ask(who: httpx.AsyncClient, seed: int) -> httpx.Response:
        body = {"model": "bot", "label": "v1.0.0", "suite": "questions", "seed": seed}
        return await who.post("/api/v1/evaluations", json=body)

    mine = [(await ask(house.admin, seed)).json()["id"] for seed in (1, 2, 3)]
    refused = await ask(house.admin, 4)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_much_under_way")
    assert (await ask(house.admin, 1)).status_code == 201, "what is asked already is no more of it"
    theirs = (await ask(olga, 9)).json()["id"]
    assert await limited(house, "evaluations") == 1
    taken = []
    for _ in range(4):
        job = await desk(house).claim("sha256:" + "e" * 64)
        assert job is not None
        taken.append(job.id)
        await house.admin.post(f"/api/v1/evaluations/{job.id}/cancel")
    assert taken == [mine[0], theirs, mine[1], mine[2]]


async def test_one_check_of_everything_runs_at_a_time_and_one_that_nobody_reads_is_over(bounded: House) -> None:
    house = bounded
    await house.push("bot", "v1.0.0")
    held = house.control.bounds.begin_check("ann")
    refused = await house.admin.post("/api/v1/storage/fsck", json={})
    assert refused.status_code == 429
    assert "for ann" in refused.json()["error"]["message"]
    house.control.bounds.end_check(held)
    for _ in range(2):
        done = await house.admin.post("/api/v1/storage/fsck", json={})
        assert done.status_code == 200
        assert msgspec.json.decode(done.content.splitlines()[-1])["type"] == "done"
    assert await limited(house, "checks") == 1


def test_a_check_that_has_gone_silent_gives_its_place_away() -> None:
    now = [0.0]
    bounds = Bounds(SMALL, lambda: now[0])
    first = bounds.begin_check("ann")
    now[0] = 50.0
    bounds.heard(first)
    now[0] = 100.0
    with pytest.raises(RateLimited):
        bounds.begin_check("bob")
    now[0] = 111.0
    second = bounds.begin_check("bob")
    bounds.end_check(first)
    with pytest.raises(RateLimited):
        bounds.begin_check("carl")
    bounds.end_check(second)
    bounds.begin_check("carl")


async def test_keys_that_nobody_knows_are_refused_unseen_after_some_and_right_ones_pass(bounded: House) -> None:
    house = bounded
    assert (await house.admin.get("/api/v1/me")).status_code == 200
    late = (await house.post("/keys", {"name": "late", "roles": ["analyst"]}))["key"]
    for number in range(5):
        async with house.client(f"pk-guess-{number}") as guesser:
            assert (await guesser.get("/api/v1/me")).status_code == 401
    async with house.client("pk-guess-6") as guesser:
        refused = await guesser.get("/api/v1/me")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_failed_logins")
    assert refused.headers["retry-after"] == "12"
    assert (await house.admin.get("/api/v1/me")).status_code == 200, "a key that was right lately passes"
    async with house.client(late) as new:
        assert (await new.get("/api/v1/me")).status_code == 429, "one that was never seen waits with its address"
    assert await limited(house, "logins") == 2


def test_failures_are_forgiven_with_time_and_counted_by_network() -> None:
    now = [0.0]
    logins = Logins(6, lambda: now[0])
    for host in range(6):
        logins.failed(f"2001:db8:1:2::{host}")
    for address in ("2001:db8:1:2::ffff", "2001:db8:1:2:abcd::1"):
        with pytest.raises(RateLimited):
            logins.check(address, "h")
    logins.check("2001:db8:1:3::1", "h")
    logins.check("10.0.0.1", "h")
    now[0] = 10.0
    logins.check("2001:db8:1:2::1", "h")
    logins.failed("2001:db8:1:2::1")
    with pytest.raises(RateLimited):
        logins.check("2001:db8:1:2::1", "h")
    logins.right("h")
    logins.check("2001:db8:1:2::1", "h")
    logins.wrong("h")
    with pytest.raises(RateLimited):
        logins.check("2001:db8:1:2::1", "h")
    for number in range(6):
        logins.failed(f"::ffff:10.0.0.{number % 1 + 2}")
    with pytest.raises(RateLimited):
        logins.check("10.0.0.2", "x")


async def test_the_console_tells_whom_it_asks_for_and_nobody_else_can(bounded: House) -> None:
    house = bounded

    async def guess(client: tuple[str, int], said: str) -> int:
        transport = httpx.ASGITransport(app=house.app, client=client)
        async with httpx.AsyncClient(transport=transport, base_url="http://control") as http:
            headers = {"authorization": "Bearer pk-no", "x-penstock-for": said}
            return (await http.get("/api/v1/me", headers=headers)).status_code

    for _ in range(5):
        assert await guess((CONSOLE, 0), "203.0.113.7") == 401
    assert await guess((CONSOLE, 0), "203.0.113.7") == 429
    assert await guess((CONSOLE, 0), "203.0.113.8") == 401
    for number in range(5):
        assert await guess(("198.51.100.1", 4000), f"10.0.0.{number}") == 401
    assert await guess(("198.51.100.1", 4000), "10.0.0.99") == 429
