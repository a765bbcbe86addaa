"""What an engine saw of an answer, and what came of sessions, where people look."""

import math
import re

import httpx

from penstock.core.exchange import Quality
from tests.console.conftest import sign_in
from tests.console.house import House, exchange


def words(page: str) -> str:
    """The page's text, without its markup and with plain blanks."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


async def test_a_request_shows_what_its_engine_saw(newcomer: httpx.AsyncClient, new_house: House) -> None:
    seen = Quality(27, -27 * math.log(2.5), 25, 5, True)
    looked_at, other = exchange(1, 1000.0, quality=seen), exchange(2, 1000.0)
    new_house.ingest([looked_at, other])
    told = new_house.call("GET", f"/requests/{looked_at.id}")["request"]["quality"]
    assert (told["scored"], told["refused"], told["repetition"]) == (27, True, 0.2)
    await sign_in(newcomer)
    page = words((await newcomer.get(f"/requests/{looked_at.id}")).text)
    assert "Perplexity 2.50 over 27 tokens" in page
    assert "Repetition 20 % of its runs of three tokens" in page
    assert "Refusal yes" in page
    assert "Perplexity" not in (await newcomer.get(f"/requests/{other.id}")).text


async def test_the_overview_shows_sessions(newcomer: httpx.AsyncClient, new_house: House) -> None:
    now = new_house.call("GET", "/overview")["at"]
    records = [exchange(1, now - 60 + 10 * n, id=f"req_{n:026d}", outcome="ok", user="u") for n in range(2)]
    new_house.ingest([*records, exchange(3, now - 30, id="req_alone", outcome="ok", user="v")])
    await sign_in(newcomer)
    page = words((await newcomer.get("/")).text)
    assert "Sessions 2 1.50 requests" in page
    assert "Engaged 50 %" in page
    assert "Conversions 0 0 % of sessions" in page
