"""A bandit's, a shadow's and an interleaved experiment's page: who leads, what was preferred, what an A/B test would say."""

import html
import random

import httpx

from penstock.control.evaluators.store import add_tally
from penstock.control.evaluators.work import Tally
from penstock.core.exchange import Record
from tests.console.conftest import sign_in
from tests.console.house import House
from tests.control.test_bandit import BANDIT
from tests.control.test_pairs import INTERLEAVED, SHADOW, copy, preference, shown


def begin(house: House, spec: dict[str, object], name: str) -> None:
    for pool in ("old", "new"):
        house.call("POST", "/pools", {"name": pool, "spec": {"adopt": ["http://127.0.0.1:9"]}})
    house.call("POST", "/routes", {"name": "bot", "spec": {"to": [{"pool": "old"}]}})
    house.call("POST", "/experiments", {"name": name, "spec": spec})
    house.call("POST", f"/experiments/{name}/start")


async def test_a_bandits_page_tells_who_leads(new_house: House, newcomer: httpx.AsyncClient) -> None:
    begin(new_house, BANDIT | {"plan": {"units": 500, "step_s": 600, "step_units": 50}}, "bandit-1")
    new_house.traffic("bandit-1", range(90), rates={"control": 0.3, "a": 0.4, "b": 0.7})
    await sign_in(newcomer)
    page = html.unescape((await newcomer.get("/experiments/bandit-1")).text)
    assert "Who leads" in page
    told = new_house.call("GET", "/experiments/bandit-1")["verdict"]["contenders"]
    best = max(told, key=lambda one: float(one["chance"]))
    table = page.split("Who leads")[1].split("</section>")[0]
    assert best["arm"] == "b"
    assert table.index(">b<") < table.index(">control<")


async def test_a_shadows_page_tells_what_an_ab_test_would_say(new_house: House, newcomer: httpx.AsyncClient) -> None:
    begin(new_house, SHADOW | {"primary": {"metric": "latency", "minimum_effect": 0.5}, "plan": {"units": 9000}}, "e")
    draw = random.Random(1)
    new_house.ingest([copy(n, draw.gauss(0.1, 0.6)) for n in range(60)])
    new_house.do(new_house.evaluator.round())
    await sign_in(newcomer)
    page = html.unescape((await newcomer.get("/experiments/e")).text)
    assert "What an A/B test would say" in page
    assert "a copy that no user saw, of" in (await newcomer.get("/requests/req_c00001")).text
    assert "time to first token" not in page.split("What an A/B test would say")[1].split("</section>")[0]
    assert "have the same words as the control's" in page
    assert ' width="100.0"' in page.split('id="h-arms"')[1].split("</section>")[0]  # the control answers everybody


async def test_an_experiments_page_tells_how_much_was_judged(new_house: House, newcomer: httpx.AsyncClient) -> None:
    begin(new_house, SHADOW, "e")
    judges = {"adopt": ["http://127.0.0.1:9"], "model": "judge"}
    new_house.call("POST", "/pools", {"name": "judges", "spec": judges})
    for name in ("which", "idle"):
        new_house.call("POST", "/evaluators", {"name": name, "spec": {"compare": {"pool": "judges"}}})
    tally = {"won": 4, "contradicted": 3, "same": 1, "identical": 2, "failed": 5}

    async def judge() -> None:
        async with new_house.control.database.write() as connection:
            await add_tally(connection, "which", Tally({("e", "new", name): n for name, n in tally.items()}))  # type: ignore[misc]

    new_house.do(judge())
    await sign_in(newcomer)
    page = html.unescape((await newcomer.get("/experiments/e")).text)
    table = page.split('id="h-evaluators"')[1].split("</section>")[0]
    row = table.split("which")[1].split("</tr>")[0]
    cells = [cell.split(">", 1)[1].split("<")[0] for cell in row.split("<td")[1:]]
    assert cells == ["new", "15", "10", "6", "37.5\u202f%", "5 failed"]
    assert "nothing drawn yet" in table.split("idle")[1]


async def test_an_interleaved_page_tells_the_votes(new_house: House, newcomer: httpx.AsyncClient) -> None:
    begin(new_house, INTERLEAVED, "e")
    records: list[Record] = []
    for number in range(20):
        records += [shown(number, ("new", "control")), preference(number, 0 if number % 4 else 1)]
    new_house.ingest(records)
    new_house.do(new_house.evaluator.round())
    await sign_in(newcomer)
    page = html.unescape((await newcomer.get("/experiments/e")).text)
    one = html.unescape((await newcomer.get("/requests/req_000001")).text)
    assert "arm new answered too (ok), shown in the order new, control" in one
    votes = page.split('id="h-votes"')[1].split("</section>")[0]
    assert ">15<" in votes
    assert ">5<" in votes
    assert "of the way" in votes
