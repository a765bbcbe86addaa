"""Pipelines as pages: the steps as they pass, why a gate refused, cancelling; webhooks with their messages and what is sent again."""

import httpx

from penstock.control.context import SYSTEM
from penstock.control.pipelines.loop import Pipelines
from penstock.control.webhooks.kind import webhooks_of
from penstock.control.webhooks.rows import fan_out
from tests.console.conftest import sign_in, token
from tests.console.house import ANALYST, HOSTILE, House
from tests.control.receiver import SECRET


def go_on(house: House) -> None:
    """The loop goes on until nothing more is to be done."""

    async def rounds() -> None:
        loop = Pipelines(house.control)
        while await loop.round():
            loop._due.clear()

    house.do(rounds())


async def test_a_pipeline_is_shown_as_it_passes_with_why_it_was_refused(
    new_house: House, newcomer: httpx.AsyncClient
) -> None:
    new_house.do(first_environments(new_house))
    new_house.push("v1.0.0")
    await sign_in(newcomer)
    assert "There was none yet" in (await newcomer.get("/pipelines")).text
    digest = new_house.call("GET", "/models/support-bot/versions/v1.0.0")["digest"]
    gates = {"card": True, "approval": {"by_other": False}}
    new_house.call("PUT", "/environments/staging", {"name": "staging", "spec": {"gates": gates}})
    body = {"model": "support-bot", "label": "v1.0.0", "digest": digest, "environments": ["dev", "staging"]}
    begun = new_house.call("POST", "/pipelines", body | {"reason": HOSTILE})
    go_on(new_house)
    page = f"/pipelines/{begun['id']}"
    text = (await newcomer.get(page)).text
    for part in (
        "It is under way.",
        "It waits for people",
        "penstock approve support-bot:v1.0.0",
        "Gates of staging",
        "It is live in dev.",
    ):
        assert part in text, part
    assert HOSTILE not in text
    assert f'sse-connect="/live{page}"' in text
    async with newcomer.stream("GET", f"/live{page}") as live:
        seen = ""
        async for piece in live.aiter_text():
            seen += piece
            if "\n\n" in seen.partition("event: steps")[2]:
                break
    assert "gate staging" in seen
    assert f'href="{page}"' in (await newcomer.get("/pipelines?model=support-bot")).text
    assert "Pipelines" in (await newcomer.get("/models/support-bot")).text

    confirm = (await newcomer.get(f"{page}/cancel")).text
    reply = await newcomer.post(f"{page}/cancel", data={"csrf": token(confirm), "reason": "not this one"})
    assert reply.headers["location"] == f"{page}?done=pipeline-cancelled"
    text = (await newcomer.get(reply.headers["location"])).text
    assert "Cancelled by admin: not this one." in text
    assert "sse-connect" not in text
    again = new_house.call("POST", "/pipelines", body | {"patience_s": 0.0})
    go_on(new_house)
    text = (await newcomer.get(f"/pipelines/{again['id']}")).text
    assert "It was refused." in text
    assert "gate staging: card: The card lacks" in text


async def test_webhooks_are_shown_and_sent_again(new_house: House, newcomer: httpx.AsyncClient) -> None:
    secrets = new_house.control.data / "secrets"
    secrets.mkdir()
    (secrets / "deploys").write_text(SECRET)
    await sign_in(newcomer)
    assert "There is none" in (await newcomer.get("/webhooks")).text
    spec = {"url": "https://hooks.example.com/x", "secret": "deploys", "events": ["version.*"]}
    new_house.call("POST", "/webhooks", {"kind": "Webhook", "name": "deploys", "spec": spec})
    new_house.push("v1.0.0")
    new_house.do(made(new_house))
    assert "https://hooks.example.com/x" in (await newcomer.get("/webhooks")).text
    text = (await newcomer.get("/webhooks/deploys")).text
    for part in ("version.commit", "support-bot:v1.0.0", "1 wait, 0 are dead letters"):
        assert part in text, part
    assert "None." in (await newcomer.get("/webhooks/deploys?state=dead")).text
    reply = await newcomer.post("/webhooks/deploys/send", data={"csrf": token(text), "what": "test"})
    assert reply.headers["location"] == "/webhooks/deploys?done=webhook-sent"
    new_house.do(made(new_house))
    assert "webhook.test" in (await newcomer.get("/webhooks/deploys")).text
    reply = await newcomer.post("/webhooks/deploys/send", data={"csrf": token(text), "what": "dead"})
    assert reply.status_code == 303
    assert (await newcomer.post("/webhooks/deploys/send", data={"csrf": token(text), "what": "x"})).status_code == 400
    async with httpx.AsyncClient(base_url=new_house.url) as other:
        await sign_in(other, ANALYST)
        assert "Send a test" not in (await other.get("/webhooks/deploys")).text


async def made(house: House) -> None:
    """Deliveries are made; nothing is sent."""
    async with house.control.deed(SYSTEM) as change:
        await fan_out(change, await webhooks_of(change.connection))


async def first_environments(house: House) -> None:
    """The environments that every installation has."""
    from penstock.control.bootstrap import bootstrap

    await bootstrap(house.control, starter=None)
