"""A route that is for one tenant alone: to all others it is not there."""

import json
from pathlib import Path

from penstock.core.snapshot import Policy, Route, Rule, Target
from tests.gateway.house import KEY, OTHER, running
from tests.gateway.raw_client import ask, chat


async def test_to_all_others_it_is_not_there(tmp_path: Path) -> None:
    policies = (
        Policy(name="default", rules=(Rule(name="words", words=("forbidden",)),)),
        Policy(name="(evaluators)"),
    )
    private = Route(name="(evaluators)/v", to=(Target(pool="pool"),), policy="(evaluators)", tenant="other")
    async with running(tmp_path, policies=policies, routes=(private,)) as house:
        mine = await ask(house.port, chat("forbidden words", model="(evaluators)/v"))
        assert (mine.status, json.loads(mine.body)["error"]["code"]) == (404, "model_not_found")
        theirs = await ask(house.port, chat("forbidden words", model="(evaluators)/v", key=OTHER))
        assert theirs.status == 200, theirs.body  # by its own policy, which has no rules
        for key in (KEY, OTHER):
            asked = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n\r\n" % key.encode()
            listed = await ask(house.port, asked)
            assert [one["id"] for one in json.loads(listed.body)["data"]] == ["mock"]
        await house.settled()
        (record,) = [one for one in house.exchanges() if one.status == 200]
        assert (record.tenant, record.route) == ("other", "(evaluators)/v")
