"""The page of a version's gates: what is asked, with its figures and commands; and the buttons that supply what is missing."""

import json

import httpx

from tests.console.conftest import sign_in, token
from tests.console.house import House, furnish

SUITE = json.dumps({"id": "a", "prompt": "?", "score": {"type": "exact", "answers": ["x"]}})


async def test_gates_are_shown_run_and_approved(new_house: House, newcomer: httpx.AsyncClient) -> None:
    furnish(new_house)
    await sign_in(newcomer)
    page = "/models/support-bot/v1.1.0/gates?environment=staging"
    assert "staging asks nothing of a version" in (await newcomer.get(page)).text
    new_house.call("POST", "/suites", {"name": "questions", "lines": SUITE})
    gates = {"scan": True, "suites": [{"suite": "questions"}], "approval": {"by_other": False}}
    new_house.call("PUT", "/environments/staging", {"name": "staging", "spec": {"gates": gates}})
    text = (await newcomer.get(page)).text
    for part in ("suite questions", "penstock gates run support-bot:v1.1.0 --for staging", "Evaluate what is missing"):
        assert part in text
    path = "/models/support-bot/v1.1.0/gates"
    fields = {"csrf": token(text), "environment": "staging"}
    reply = await newcomer.post(f"{path}/run", data=fields)
    assert reply.headers["location"] == f"{path}?environment=staging&done=gates-run"
    text = (await newcomer.get(reply.headers["location"])).text
    assert "What is missing is evaluated" in text
    assert "queued" in text
    assert 'value="0"' in text
    [waiting] = new_house.call("GET", "/evaluations", state="queued", label="v1.1.0")
    assert waiting["build"] in (await newcomer.get(f"/evaluations/{waiting['id']}")).text
    reply = await newcomer.post(f"{path}/approve", data={**fields, "reason": "It is fine."})
    assert reply.headers["location"].endswith("done=approved")
    assert "Approved by admin" in (await newcomer.get(reply.headers["location"])).text
    refused = await newcomer.post(
        "/models/support-bot/promote", data={"csrf": fields["csrf"], "label": "v1.1.0", "environment": "staging"}
    )
    assert refused.status_code == 409
    assert "does not pass the gates of staging" in refused.text
    form = (await newcomer.get("/models/support-bot/promote?label=v1.1.0")).text
    assert "though gates are not passed" in form
    reply = await newcomer.post(
        "/models/support-bot/promote",
        data={"csrf": token(form), "label": "v1.1.0", "environment": "staging", "override": "A drill."},
    )
    assert reply.status_code == 303
    assert "Gates overridden" in (await newcomer.get("/models/support-bot")).text
