"""What an engine saw of an answer, and what came of sessions, where people look."""

import math
import re

import httpx

from penstock.core.engine_phases import EnginePhases
from penstock.core.exchange import Quality, Try
from tests.console.conftest import sign_in
from tests.console.house import House, exchange


def words(page: str) -> str:
    """The page's text, without its markup and with plain blanks."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


async def test_a_request_shows_what_its_engine_saw(newcomer: httpx.AsyncClient, new_house: House) -> None:
    seen = Quality(27, -27 * math.log(2.5), 25, 5, True)
    engine = EnginePhases(1_000_000, 2_000_000, 3_000_000, 4_000_000, 0)
    tries = (Try("hedge", "support-bot-int8", "r0", 510_000, 20_000_000),)
    looked_at = exchange(1, 1000.0, quality=seen, engine=engine, tries=tries)
    other = exchange(2, 1000.0)
    new_house.ingest([looked_at, other])
    explained = new_house.call("GET", f"/requests/{looked_at.id}")
    told = explained["request"]["quality"]
    assert (told["scored"], told["refused"], told["repetition"]) == (27, True, 0.2)
    await sign_in(newcomer)
    page = words((await newcomer.get(f"/requests/{looked_at.id}")).text)
    assert "Perplexity 2.50 over 27 tokens" in page
    assert "Repetition 20 % of its runs of three tokens" in page
    assert "Refusal yes" in page
    assert "In the engine" in page and "Read the prompt 3.00 ms" in page
    assert "Asked in vain" in page and "r0 support-bot-int8 another one was quicker" in page
    assert [phase["ms"] for phase in explained["engine"]] == [1.0, 2.0, 3.0, 4.0]
    assert explained["request"]["engine"]["prefill"] == 3_000_000
    assert explained["request"]["tries"][0]["replica"] == "r0"
    plain = (await newcomer.get(f"/requests/{other.id}")).text
    assert not [words for words in ("Perplexity", "In the engine", "Asked in vain") if words in plain]


async def test_the_overview_shows_sessions(newcomer: httpx.AsyncClient, new_house: House) -> None:
    now = new_house.call("GET", "/overview")["at"]
    records = [exchange(1, now - 60 + 10 * n, id=f"req_{n:026d}", outcome="ok", user="u") for n in range(2)]
    new_house.ingest([*records, exchange(3, now - 30, id="req_alone", outcome="ok", user="v")])
    await sign_in(newcomer)
    page = words((await newcomer.get("/")).text)
    assert "Sessions 2 1.50 requests" in page
    assert "Engaged 50 %" in page
    assert "Conversions 0 0 % of sessions" in page
