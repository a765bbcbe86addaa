"""The page of a version's builds: what each costs and gains, the jobs, and the buttons that ask for one or for all."""

import httpx

from tests.console.conftest import sign_in, token
from tests.console.house import House, furnish


async def test_builds_are_asked_for_and_shown(new_house: House, newcomer: httpx.AsyncClient) -> None:
    furnish(new_house)
    await sign_in(newcomer)
    version = (await newcomer.get("/models/support-bot/v1.1.0")).text
    assert 'href="/models/support-bot/v1.1.0/builds"' in version
    assert "brought along" in version
    page = "/models/support-bot/v1.1.0/builds"
    text = (await newcomer.get(page)).text
    assert "there is no such build" in text
    assert "speed is not measured" in text
    assert "the others are compared with it" in text
    fields = {"csrf": token(text)}
    reply = await newcomer.post(f"{page}/make", data={**fields, "precision": "int4"})
    assert reply.headers["location"] == f"{page}?done=build-asked"
    text = (await newcomer.get(reply.headers["location"])).text
    assert "It is built in a process of its own" in text
    assert "it waits to be built" in text
    assert "queued" in text
    reply = await newcomer.post(f"{page}/suggest", data=fields)
    assert reply.headers["location"] == f"{page}?done=builds-asked"
    jobs = new_house.call("GET", "/builds", model="support-bot", label="v1.1.0")
    assert sorted(one["precision"] for one in jobs) == ["fp16", "fp32", "int4"]
    assert "speed waits" in (await newcomer.get(page)).text
    refused = await newcomer.post(f"{page}/make", data={**fields, "precision": "int8"})
    assert refused.status_code == 409
    assert "brought a build in int8" in refused.text
