"""Drift's input: noticed of so many requests a second, in numbers, with nothing of what was said."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.core.exchange import Noticed
from penstock.experiments.drift_text import words_of
from tests.gateway.house import KEY, House, running

SAID = "Where is the parcel of Marguerite Featherstonehaugh?"


async def ask(house: House, path: str, **body: Any) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        reply = await client.post(
            f"{house.url}/v1/{path}", json={"model": "mock", **body}, headers={"authorization": f"Bearer {KEY}"}
        )
        assert reply.status_code == 200, reply.text


async def test_what_the_user_said_last_is_noticed_and_none_of_it_kept(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]
    parts = [{"type": "text", "text": SAID}]
    async with running(tmp_path) as house:
        await ask(house, "chat/completions", messages=[*turns, {"role": "user", "content": SAID}])
        await ask(house, "chat/completions", messages=[{"role": "user", "content": parts}], stream=True)
        await ask(house, "completions", prompt=SAID)
        await ask(house, "chat/completions", messages=[{"role": "system", "content": "Be kind."}])
    noticed = [exchange.noticed for exchange in house.exchanges()]
    assert noticed == [Noticed(characters=len(SAID), language="en", words=words_of(SAID))] * 3 + [None]
    journal = b"".join(file.read_bytes() for file in tmp_path.rglob("*.pjl"))
    assert b"Featherstonehaugh" not in journal


@pytest.mark.parametrize(("per_s", "most"), [(0.0, 0), (2.0, 4)])
async def test_no_more_are_noticed_than_a_worker_may(tmp_path: Path, per_s: float, most: int) -> None:
    async with running(tmp_path, settings={"notice_per_s": per_s}) as house:
        begun = asyncio.get_running_loop().time()
        for _ in range(12):
            await ask(house, "chat/completions", messages=[{"role": "user", "content": SAID}])
        took = asyncio.get_running_loop().time() - begun
    found = sum(exchange.noticed is not None for exchange in house.exchanges())
    assert len(house.exchanges()) == 12
    assert found <= most + per_s * took
    assert (found > 0) == (per_s > 0)
