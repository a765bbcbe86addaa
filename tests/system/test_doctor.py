"""`penstock doctor` names the true cause first: faults that are planted in a running installation, one after the other."""

import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.journal.sinks.elastic_server import Elastic
from tests.net.certificates import make_certificate
from tests.store.redis_server import PROGRAM, RedisServer
from tests.system.planted import FAULTS, Bed, True_
from tests.system.starter import running

pytestmark = [pytest.mark.system]
SHORT = (
    "a pool with a wrong address",
    "control is stopped",
    "a sink cannot be reached",
    "a tenant's limits are used up",
)


@asynccontextmanager
async def bed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *flags: str, redis: RedisServer | None = None
) -> AsyncIterator[Bed]:
    elastic = Elastic()
    monkeypatch.setenv("PENSTOCK_SHIP_ELASTICSEARCH_URL", await elastic.start())
    if redis is not None:
        monkeypatch.setenv("PENSTOCK_GATEWAY_REDIS_URL", redis.url)
    with running(folder / "data", "--workers", "2", *flags) as up:
        made = Bed(up, elastic=elastic, redis=redis, window_s=8 if redis is not None else 2)
        try:
            await made.prepare()
            yield made
        finally:
            await made.http.aclose()
            await elastic.stop()


async def named(made: Bed, fault: Callable[[Bed], AbstractAsyncContextManager[True_]]) -> tuple[bool, list[Any]]:
    """Whether the first cause that is named is the true one; and all that were."""
    async with fault(made) as (name, subject):
        causes = (await made.doctor())["causes"]
        first = causes[0] if causes else {"name": "", "subject": ""}
        right = first["name"] == name and str(first["subject"]).startswith(subject)
    return right, causes


async def test_doctor_names_the_true_cause_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bed(tmp_path, monkeypatch, "--empty") as made:
        for title in SHORT:
            right, causes = await named(made, FAULTS[title])
            assert right, (title, causes)
            assert causes[0]["evidence"]
            assert causes[0]["command"]
            assert all(one["likelihood"] <= causes[0]["likelihood"] for one in causes)


@pytest.mark.soak
@pytest.mark.engine
@pytest.mark.timeout(1500)
@pytest.mark.skipif(PROGRAM is None, reason="there is no redis-server here")
async def test_the_true_cause_comes_first_for_nine_of_ten_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = RedisServer(tmp_path / "redis")
    await redis.start()
    make_certificate(tmp_path, days=90)
    journal = tmp_path / "data" / "journal"
    journal.mkdir(parents=True)
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(journal)], check=False).returncode == 0
    )
    faults = {title: fault for title, fault in FAULTS.items() if mounted or "disk" not in title}
    flags = ("--tls-certificate", "cert.pem", "--tls-key", "key.pem")
    results: dict[str, tuple[bool, list[Any]]] = {}
    try:
        async with bed(tmp_path, monkeypatch, *flags, redis=redis) as made:
            for title, fault in faults.items():
                await made.well()
                results[title] = await named(made, fault)
                right, causes = results[title]
                order = " < ".join(f"{one['name']} {one['subject']} {one['likelihood']:.2f}" for one in causes[:4])
                print(f"\n{'right' if right else 'WRONG'}: {title}: {order}", flush=True)
    finally:
        redis.kill()
        if mounted:
            subprocess.run(["umount", "-l", str(journal)], check=False)
    score = sum(right for right, _ in results.values())
    print(f"\n{score} of {len(results)} causes named first")
    assert score >= 0.9 * len(results), [title for title, (right, _) in results.items() if not right]
