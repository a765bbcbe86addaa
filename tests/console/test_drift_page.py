"""Drift where people look: the page of all, a model's page, and the form that takes a change for what is to be."""

import random
import time

import httpx
import msgspec
from sqlalchemy import insert

from penstock.console.figures import number
from penstock.core.exchange import Exchange, Noticed, Observation, Quality
from penstock.experiments.drift_watch import RUN_LENGTH
from penstock.store.schema_drift import alert_actions
from tests.console.conftest import sign_in, token
from tests.console.house import ADMIN, House, exchange
from tests.system.program import run_module


def asked(number: int, draw: random.Random, *, bad: float) -> list[Exchange | Observation]:
    at, wrong = time.time(), draw.random() < bad
    seen = Noticed(characters=draw.randint(10, 90), language="en", words=draw.getrandbits(32))
    quality = Quality(scored=10, logprob=-draw.gauss(5, 0.5) if wrong else -draw.gauss(0.3, 0.05))
    one = exchange(number, at, outcome="ok", status=200, error="", cache="off", noticed=seen, quality=quality)
    word = Observation(
        id=f"f{number}", at=at, received=at, kind="feedback", tenant="demo", request=one.id, success=not wrong
    )
    return [one, word]


async def test_a_change_is_shown_with_its_reference_and_can_be_accepted(
    new_house: House, newcomer: httpx.AsyncClient
) -> None:
    draw = random.Random(1)
    new_house.call("PUT", "/environments/production", {"name": "production", "spec": {}})
    new_house.push("v1.1.0")
    new_house.promote("v1.1.0")
    await sign_in(newcomer)
    assert "Nothing was observed yet" in (await newcomer.get("/drift")).text
    new_house.ingest([one for n in range(220) for one in asked(n, draw, bad=0.05)])
    page = (await newcomer.get("/drift")).text
    assert ">watching</span>" in page
    assert f"once in {number(RUN_LENGTH)} requests" in page
    new_house.ingest([one for n in range(1000, 1250) for one in asked(n, draw, bad=0.7)])

    async def noted() -> None:
        async with new_house.control.database.write() as connection:
            await connection.execute(
                insert(alert_actions).values(
                    sequence=1, at=time.time(), alert="PenstockOutputDrift", environment="production",
                    model="support-bot", label="v1.1.0", action="none", revision=None,
                    reason="support-bot:v1.1.0 <b>was gone back to</b>.",
                )
            )  # fmt: skip

    new_house.do(noted())
    for day, bad in ((1, 0.7), (2, 0.05)):  # two days later, so that the first after today is over
        new_house.ingest(
            [
                msgspec.structs.replace(one, at=one.at + day * 86400)
                for n in range(120)
                for one in asked(2000 * day + n, draw, bad=bad)
            ]
        )
    at = ("--url", new_house.url, "--key", ADMIN)
    told = run_module("penstock.cli", "drift", "show", "support-bot", *at, "--json")["drift"]
    assert {one["signal"] for one in told[0]["signals"] if one["state"] == "alarm"} == {"success", "perplexity"}
    days = run_module("penstock.cli", "drift", "days", "support-bot:v1.1.0", *at, "--json")["days"]
    assert {one["signal"] for one in days if one["shifted"]} == {"perplexity"}
    assert "input_length" in {one["signal"] for one in days if not one["shifted"]}
    for path in ("/drift", "/models/support-bot"):
        page = (await newcomer.get(path)).text
        assert ">alarm</span> Success is 0." in page
        assert "perplexity" in page
        assert "Days against the reference" in page
        assert ">shifted</span>" in page
        assert ">unchanged</span>" in page
        assert "&lt;b&gt;was gone back to" in page
    sent = {"csrf": token(page), "model": "support-bot:v1.1.0", "arm": "", "reason": "a new prompt"}
    reply = await newcomer.post("/drift/accept", data=sent, follow_redirects=True)
    assert "A new reference begins" in reply.text
    assert ">alarm</span>" not in reply.text
