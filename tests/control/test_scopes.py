"""Every endpoint of the API is called with a tenant's key of every role: each holds it to its tenant, or refuses it with a reason."""

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from penstock.access.principals import ROLES
from penstock.control.api.statistics import live
from penstock.control.auth import principal_of_key
from penstock.control.deploy.canary_watch import Watch
from penstock.control.experiments.signal import Signal
from penstock.control.ingest.reader import ingest_router
from penstock.control.rules import Rule, rules_of
from penstock.journal.format import encode_frame
from tests.control.bed import exchange, feedback
from tests.control.house import TOKEN, House
from tests.control.test_alerts import notice, tell, told

OWN, OTHER = "alphatenant", "betatenant"
OTHERS = re.compile(rb"betatenant|req_000002|betauser|beta-key|fb-2")
# What a tenant's own endpoints are asked: path and body. `{own}` and `{other}` are ids of keys.
ASKED: dict[tuple[str, str], tuple[str, Any]] = {
    ("GET", "/alerts"): ("/alerts", None),
    ("GET", "/audit"): ("/audit?limit=1000", None),
    ("GET", "/engagement"): ("/engagement?by=tenant", None),
    ("POST", "/feedback/export"): ("/feedback/export", {"without_consent": True, "reason": "A look."}),
    ("GET", "/keys"): ("/keys", None),
    ("POST", "/keys"): ("/keys", {"name": "one-more", "tenant": OWN}),
    ("PUT", "/keys/{identity}"): ("/keys/{own}", {"tenant": OWN, "roles": ["analyst"]}),
    ("DELETE", "/keys/{identity}"): ("/keys/{own}", None),
    ("POST", "/keys/{identity}/revoke"): ("/keys/{own}/revoke", None),
    ("GET", "/me"): ("/me", None),
    ("GET", "/overview"): ("/overview", None),
    ("POST", "/query"): ("/query", {"sql": "SELECT count(*) FROM exchanges"}),
    ("GET", "/query/named"): ("/query/named", None),
    ("GET", "/requests"): ("/requests", None),
    ("GET", "/requests/{request_id}"): ("/requests/req_000001", None),
    ("GET", "/requests/{request_id}/content"): ("/requests/req_000001/content", None),
    ("GET", "/requests/{request_id}/provenance"): ("/requests/req_000001/provenance", None),
    ("POST", "/subjects/forget"): ("/subjects/forget", {"tenant": OWN, "user": "u"}),
    ("GET", "/tenants"): ("/tenants", None),
    ("GET", "/tenants/{name}"): (f"/tenants/{OWN}", None),
    ("GET", "/usage"): ("/usage?by=tenant", None),
}
# And what they are asked of another's: each is refused, or finds nothing.
REACHED: dict[tuple[str, str], tuple[str, Any, int]] = {
    ("GET", "/audit"): (f"/audit?tenant={OTHER}", None, 403),
    ("GET", "/engagement"): (f"/engagement?tenant={OTHER}", None, 403),
    ("POST", "/feedback/export"): ("/feedback/export", {"tenant": OTHER}, 403),
    ("GET", "/keys"): (f"/keys?tenant={OTHER}", None, 403),
    ("POST", "/keys"): ("/keys", {"name": "k", "tenant": OTHER}, 403),
    ("PUT", "/keys/{identity}"): ("/keys/{other}", {"tenant": OTHER, "roles": ["analyst"]}, 403),
    ("DELETE", "/keys/{identity}"): ("/keys/{other}", None, 403),
    ("POST", "/keys/{identity}/revoke"): ("/keys/{other}/revoke", None, 403),
    ("GET", "/requests"): (f"/requests?tenant={OTHER}", None, 403),
    ("GET", "/requests/{request_id}"): ("/requests/req_000002", None, 404),
    ("GET", "/requests/{request_id}/content"): ("/requests/req_000002/content", None, 404),
    ("GET", "/requests/{request_id}/provenance"): ("/requests/req_000002/provenance", None, 404),
    ("POST", "/subjects/forget"): ("/subjects/forget", {"tenant": OTHER, "user": "u"}, 403),
    ("GET", "/tenants/{name}"): (f"/tenants/{OTHER}", None, 403),
    ("GET", "/usage"): (f"/usage?tenant={OTHER}", None, 403),
}


class Two:
    """Two tenants with requests, feedback, alerts and keys of their own, and for one of them a key of each role."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.texts: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        self.clients: dict[str, httpx.AsyncClient] = {}

    async def key(self, name: str, tenant: str, roles: list[str]) -> None:
        made = await self.house.post("/keys", {"name": name, "tenant": tenant, "roles": roles})
        self.texts[name], self.ids[name] = made["key"], made["id"]

    async def call(self, role: str, method: str, path: str, body: Any) -> httpx.Response:
        at = path.replace("{own}", self.ids["victim"]).replace("{other}", self.ids["beta-key"])
        client = self.clients.get(role)
        if client is None:
            client = self.clients[role] = self.house.client(self.texts[role])
        return await client.request(method, f"/api/v1{at}", json=body)


@pytest.fixture
async def two(small_house: House) -> AsyncIterator[Two]:
    house = small_house
    house.app.include_router(ingest_router(Signal(Watch(tuple)), None))
    found = Two(house)
    for name in (OWN, OTHER):
        await house.post("/tenants", {"name": name, "spec": {"limits": {"requests_per_minute": 7}}})
    await found.key("beta-key", OTHER, ["auditor"])
    await found.key("victim", OWN, ["analyst"])
    for role in ROLES:
        await found.key(role, OWN, [role])
    now = house.control.clock()
    mine, theirs = (
        exchange(number, at=now - 30, tenant=tenant, user=user)
        for number, tenant, user in ((1, OWN, "alphauser"), (2, OTHER, "betauser"))
    )
    await ingest(house, mine, theirs, *(feedback(n, at=now, received=now, tenant=t) for n, t in ((1, OWN), (2, OTHER))))
    async with house.client("none") as nobody:  # the first who asks has the token made
        assert (await nobody.get("/api/v1/targets")).status_code == 401
    await tell(house, notice(told(pool="a"), told(pool="b", tenant=OWN), told(pool="c", tenant=OTHER)))
    yield found


async def ingest(house: House, *records: Any) -> None:
    body = b"".join(encode_frame(record) for record in records)
    async with house.client(TOKEN) as client:
        answer = await client.post(
            "/internal/v1/ingest",
            params={"source": "w1.1", "segment": 1, "start": 64, "end": 64 + len(body)},
            content=body,
        )
    assert answer.status_code == 200, answer.text


def of_scope(house: House, scope: str) -> list[Rule]:
    return [rule for rule in rules_of(house.app) if rule.scope == scope and rule.path.startswith("/api/v1/")]


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_what_is_the_installations_is_refused_to_a_tenants_key_of_every_role(two: Two) -> None:
    rules = of_scope(two.house, "installation")
    assert len(rules) > 100
    for rule in rules:
        path = re.sub(r"\{(\w+)\}", "x", rule.path.removeprefix("/api/v1"))
        lacking = [role for role in ROLES if role not in rule.roles]
        for role in (*rule.roles, *lacking[:1]):
            answer = await two.call(role, rule.method, path, {} if rule.method in {"POST", "PUT"} else None)
            wanted = (403, "held_to_tenant" if role in rule.roles else "permission_denied")
            assert refused(answer) == wanted, (rule.method, rule.path, role, answer.text)
    whole = (await two.call("admin", "POST", "/promote", {})).json()["error"]
    assert OWN in whole["message"]
    assert "penstock keys create" in whole["hint"]


async def test_what_is_a_tenants_is_held_to_it_for_every_role(two: Two) -> None:
    rules = {(rule.method, rule.path.removeprefix("/api/v1")): rule for rule in of_scope(two.house, "tenant")}
    assert set(ASKED) == set(rules) - {("GET", "/live")}, "say here what a new endpoint of this scope is asked"
    for place, rule in rules.items():
        for role in ROLES:
            if place == ("GET", "/live"):
                continue
            may = not rule.permissions or role in rule.roles
            for path, body, status in (
                (*ASKED[place], 200),
                *((REACHED[place],) if place in REACHED else ()),
            ):
                answer = await two.call(role, place[0], path, body)
                if not may:
                    assert refused(answer) == (403, "permission_denied"), (place, role)
                elif status == 200:
                    if answer.status_code == 503:
                        assert answer.json()["error"]["code"] == "analytics_missing", (place, role, answer.text)
                    else:
                        assert answer.status_code in {200, 201, 204}, (place, role, answer.text)
                    assert not OTHERS.search(answer.content), (place, role, answer.text)
                else:
                    assert answer.status_code == status, (place, role, answer.text)
                    if status == 403:
                        assert refused(answer)[1] == "other_tenant"


async def test_streams_trail_and_new_keys_are_held_to_the_tenant_too(two: Two) -> None:
    await streams(two)
    await keys_that_reach_no_further(two)
    await trail(two)


async def streams(two: Two) -> None:
    house = two.house
    await house.post("/tenants", {"name": "silent", "spec": {}})
    await two.key("silent", "silent", ["analyst"])
    requests = {}
    for name in ("analyst", "silent"):
        who = await principal_of_key(house.control, two.texts[name], "here")
        stream = live(house.control, who, 900.0)
        event = await anext(stream)
        await stream.aclose()
        requests[name] = msgspec.json.decode(event.partition(b"data: ")[2])["requests"]
    assert requests == {"analyst": 1, "silent": 0}


async def trail(two: Two) -> None:
    """What its keys did, and what was done to it."""
    house = two.house
    await house.post("/keys", {"name": "by-us", "tenant": OWN})
    await two.call("admin", "POST", "/keys", {"name": "by-them", "tenant": OWN})
    await house.admin.put(f"/api/v1/tenants/{OWN}", json={"name": OWN, "spec": {"limits": {"concurrency": 2}}})
    await house.post(
        "/suites", {"name": "s", "lines": '{"id":"a","prompt":"?","score":{"type":"exact","answers":["y"]}}'}
    )
    seen = (await two.call("auditor", "GET", "/audit?limit=1000", None)).json()
    assert {event["tenant"] for event in seen} == {OWN}
    assert {(event["action"], event["principal"]) for event in seen if event["action"] != "key.create"} >= {
        ("tenant.put", "admin")
    }
    made = [event for event in seen if event["action"] == "key.create"]
    assert {"by-us", "by-them"} <= {event["detail"]["name"] for event in made}
    whole = await house.get("/audit?limit=1000")
    assert {event["tenant"] for event in whole} == {OWN, OTHER, "silent", None}
    assert "suite.register" in {event["action"] for event in whole}
    assert {event["tenant"] for event in await house.get(f"/audit?tenant={OTHER}")} == {OTHER}


async def keys_that_reach_no_further(two: Two) -> None:
    """A tenant's administrator makes no key that is another tenant's, the installation's, or a person's."""
    await two.house.post("/principals", {"name": "ann", "roles": ["admin"]})
    for body in (
        {"name": "k", "roles": ["admin"]},
        {"name": "k", "principal": "ann"},
        {"name": "k", "tenant": OWN, "principal": "ann"},
    ):
        answer = await two.call("admin", "POST", "/keys", body)
        assert refused(answer) == (403, "held_to_tenant"), body


async def test_the_openapi_says_who_may_call_what(small_house: House) -> None:
    paths = (await small_house.admin.get("/api/v1/openapi.json")).json()["paths"]
    assert paths["/api/v1/promote"]["post"]["x-penstock-access"] == {
        "permissions": ["deployments:write"],
        "scope": "installation",
        "token": None,
    }
    assert paths["/api/v1/usage"]["get"]["x-penstock-access"]["scope"] == "tenant"
    assert paths["/api/v1/targets"]["get"]["x-penstock-access"]["token"] == "monitoring"
    unguarded = {path for path, calls in paths.items() for call in calls.values() if "x-penstock-access" not in call}
    assert unguarded == set()
    open_to_all = {
        path
        for path, calls in paths.items()
        for call in calls.values()
        if call["x-penstock-access"] == {"permissions": [], "scope": None, "token": None}
    }
    assert open_to_all == {"/healthz", "/readyz", "/metrics"}
