"""The pages as a browser without script sees them."""

import datetime as dt
import re

import httpx
import msgspec
import pytest

from penstock.console.app import build_console
from penstock.control.api.monitoring import monitoring_token
from penstock.core.exchange import Content
from penstock.journal.content import Said
from tests.console.conftest import sign_in, token
from tests.console.fake_gateway import HEADERS, KEY, FakeGateway
from tests.console.house import ADMIN, ANALYST, HOSTILE, House, exchange, furnish
from tests.console.test_cards import Reading

PAGES = [
    "/",
    "/?window=86400",
    "/requests",
    "/requests?route=support-bot&outcome=error",
    f"/requests/{HEADERS['x-penstock-request-id']}",
    "/models",
    "/models/support-bot",
    "/models/support-bot/v1.0.0",
    "/models/support-bot/diff?a=v1.0.0&b=v1.1.0",
    "/models/support-bot/v1.1.0/readiness",
    "/datasets",
    "/datasets/talks",
    "/models/support-bot/promote?label=v1.0.0",
    "/models/support-bot/rollback?environment=production",
    "/drift",
    "/experiments",
    "/experiments/support-bot-1-1",
    "/experiments/echo-warmth",
    "/experiments/support-bot-draft",
    "/experiments/echo-warmth/stop",
    "/playground",
    "/access",
    "/health",
    "/docs/",
    "/docs/runbooks/",
    "/docs/runbooks/queue.md",
    "/docs/reference/metrics.md",
]


@pytest.mark.parametrize("path", PAGES)
async def test_a_stranger_is_sent_to_sign_in(visitor: httpx.AsyncClient, path: str) -> None:
    reply = await visitor.get(path)
    assert reply.status_code == 303
    assert reply.headers["location"].startswith("/sign-in")


@pytest.mark.parametrize("path", PAGES)
async def test_pages_show_themselves_and_carry_no_inline_script(visitor: httpx.AsyncClient, path: str) -> None:
    await sign_in(visitor)
    reply = await visitor.get(path)
    assert reply.status_code == 200
    text = reply.text
    reading = Reading()
    reading.feed(text)
    for tag, attributes in reading.found:
        assert tag != "script" or attributes.get("src"), text
        assert tag not in {"style", "iframe", "object", "base"}
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        assert not (attributes.get("href") or "").startswith("javascript:")
    assert all(
        url.startswith("/static/") for url in re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="([^"]*)"', text)
    )
    assert text.count('name="csrf"') == text.count('<form method="post"')


@pytest.mark.parametrize("path", [*PAGES, "/sign-in", "/static/console.css", "/nothing-here"])
async def test_security_headers_are_everywhere(visitor: httpx.AsyncClient, path: str) -> None:
    await sign_in(visitor)
    head = (await visitor.get(path)).headers
    policy = head["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert head["x-content-type-options"] == "nosniff"
    assert head["x-frame-options"] == "DENY"
    assert head["cache-control"] == ("public, max-age=31536000, immutable" if "static" in path else "no-store")


async def test_signing_in_and_out(visitor: httpx.AsyncClient) -> None:
    reply = await sign_in(visitor)
    assert reply.status_code == 303
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert ADMIN not in cookie
    page = await visitor.get("/")
    assert "admin" in page.text
    reply = await visitor.post("/sign-out", data={"csrf": token(page.text)})
    assert reply.headers["location"] == "/sign-in"
    assert (await visitor.get("/")).status_code == 303


def console_over(api: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client of a console whose API is `api`."""
    app = build_console(
        api=api, gateway=httpx.AsyncClient(), gateway_url="http://gateway.test", secret=b"a secret of this test"
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://console.test")


async def test_the_cookie_is_for_https_alone_where_the_page_was() -> None:
    async with console_over(httpx.AsyncClient()) as client:
        reply = await client.get("/sign-in")
    assert "secure" in reply.headers["set-cookie"].lower()


async def test_a_wrong_key_is_told(visitor: httpx.AsyncClient) -> None:
    reply = await sign_in(visitor, "psa-wrong")
    assert reply.status_code == 401
    assert "This key is not known" in reply.text
    assert (await visitor.get("/")).status_code == 303


async def test_signing_in_needs_the_form_that_was_shown(visitor: httpx.AsyncClient) -> None:
    await visitor.get("/sign-in")
    reply = await visitor.post("/sign-in", data={"csrf": "guessed", "key": ADMIN})
    assert reply.status_code == 403
    assert (await visitor.get("/")).status_code == 303


async def test_signing_in_leads_back_but_never_away(visitor: httpx.AsyncClient) -> None:
    page = await visitor.get("/sign-in?next=//evil.example")
    assert 'name="next" value="/"' in page.text
    reply = await visitor.post(
        "/sign-in", data={"csrf": token(page.text), "key": ADMIN, "next": "https://evil.example"}
    )
    assert reply.headers["location"] == "/"


CHANGES: list[tuple[str, dict[str, str]]] = [
    ("/models/support-bot/promote", {"label": "v1.0.0", "environment": "production"}),
    ("/models/support-bot/rollback", {"environment": "production"}),
    ("/experiments/echo-warmth/stop", {}),
    ("/access/keys", {"name": "x", "tenant": "demo"}),
    ("/access/revoke", {"id": "key_01"}),
    ("/playground", {"model": "support-bot", "message": "hello"}),
    ("/playground/stream", {"model": "support-bot", "message": "hello"}),
    ("/playground/key", {"gateway_key": "x"}),
]


@pytest.mark.parametrize(("path", "fields"), CHANGES)
@pytest.mark.parametrize("csrf", [None, "", "guessed"])
async def test_a_form_of_another_site_changes_nothing(
    house: House, gateway: FakeGateway, visitor: httpx.AsyncClient, path: str, fields: dict[str, str], csrf: str | None
) -> None:
    await sign_in(visitor)
    before = house.call("GET", "/audit")[0]["sequence"], len(gateway.seen)
    reply = await visitor.post(path, data=fields if csrf is None else {**fields, "csrf": csrf})
    assert reply.status_code in {400, 403}  # 400: without any field it is no form
    assert (house.call("GET", "/audit")[0]["sequence"], len(gateway.seen)) == before


async def test_promoting_and_rolling_back(new_house: House, newcomer: httpx.AsyncClient) -> None:
    furnish(new_house)
    await sign_in(newcomer)
    page = (await newcomer.get("/models/support-bot/rollback?environment=production")).text
    assert "Roll back to v1.0.0" in page
    fields = dict(re.findall(r'name="([a-z]+)" value="([^"]*)"', page))
    reply = await newcomer.post("/models/support-bot/rollback", data={**fields, "reason": "wrong terms"})
    assert reply.headers["location"] == "/models/support-bot?done=rolled-back"
    text = (await newcomer.get(reply.headers["location"])).text
    assert "Rolled back." in text
    assert "wrong terms" in text
    assert "v1.0.0 is warming up" in text
    stale = await newcomer.post("/models/support-bot/rollback", data={**fields, "reason": "again"})
    assert stale.status_code == 409
    assert "changed meanwhile" in stale.text
    reply = await newcomer.post(
        "/models/support-bot/promote", data={"csrf": fields["csrf"], "label": "v1.1.0", "environment": "staging"}
    )
    assert reply.status_code == 303
    assert {d["environment"]: d["label"] for d in new_house.call("GET", "/deployments")}["staging"] == "v1.1.0"


async def test_running_an_experiment(new_house: House, newcomer: httpx.AsyncClient) -> None:
    furnish(new_house)
    await sign_in(newcomer)
    for action, state in (("pause", "paused"), ("start", "running"), ("stop", "decided"), ("archive", "archived")):
        page = await newcomer.get(f"/experiments/echo-warmth/{action}")
        reply = await newcomer.post(f"/experiments/echo-warmth/{action}", data={"csrf": token(page.text)})
        assert reply.status_code == 303, reply.text
        assert f">{state}</span>" in (await newcomer.get(reply.headers["location"])).text
    page = await newcomer.get("/experiments/echo-warmth/start")
    reply = await newcomer.post("/experiments/echo-warmth/start", data={"csrf": token(page.text)})
    assert reply.status_code == 409
    assert "archived and cannot start" in reply.text


async def test_trying_a_version_out(new_house: House, newcomer: httpx.AsyncClient) -> None:
    furnish(new_house)
    await sign_in(newcomer)
    form = (await newcomer.get("/models/support-bot/promote?label=v1.0.0")).text
    csrf = token(form)
    assert '<option value="canary">' in form
    asked = {"csrf": csrf, "label": "v1.0.0", "environment": "production", "how": "canary", "reason": HOSTILE}
    reply = await newcomer.post("/models/support-bot/promote", data=asked)
    assert reply.headers["location"] == "/canaries/support-bot?done=canary-started"
    text = (await newcomer.get(reply.headers["location"])).text
    assert "Canary of support-bot:v1.0.0" in text
    assert "v1.0.0 is tried out." in text
    assert "Step 1 of 5 waits for" in text
    assert len(re.findall(r'class="gauge"', text)) == 5
    assert HOSTILE not in text, "escaped"
    name = re.findall(r'sse-connect="/live/canaries/([^"]+)"', text)[0]
    await sends(newcomer, f"/live/canaries/{name}", {"standing", "evidence"})
    for action, state in (("pause", "paused"), ("resume", "running"), ("abort", "aborted")):
        page = await newcomer.get(f"/canaries/{name}/{action}")
        assert page.status_code == 200, page.text
        fields = {"csrf": csrf, "reason": "it swears", **({"block": "yes"} if action == "abort" else {})}
        reply = await newcomer.post(f"/canaries/{name}/{action}", data=fields)
        assert reply.status_code == 303, reply.text
        text = (await newcomer.get(reply.headers["location"])).text
        assert f">{state}</span>" in text
    assert "v1.0.0 was taken back by hand." in text
    assert "v1.0.0 is blocked in production" in text
    model = (await newcomer.get("/models/support-bot")).text
    assert "may not be deployed in production" in model
    assert "tried out by admin" in model
    refused = await newcomer.post("/models/support-bot/promote", data=asked)
    assert refused.status_code == 409
    page = await newcomer.get("/models/support-bot/clear?environment=production&label=v1.0.0")
    assert "it swears" in page.text
    reply = await newcomer.post("/models/support-bot/clear", data=asked | {"reason": "retrained"})
    assert "may be deployed again" in (await newcomer.get(reply.headers["location"])).text
    assert (await newcomer.get(f"/canaries/{name}/explode")).status_code == 404
    assert (await newcomer.get("/canaries/none")).status_code == 404


async def test_making_and_revoking_a_key(new_house: House, newcomer: httpx.AsyncClient) -> None:
    new_house.call("POST", "/tenants", {"name": "demo", "spec": {"model_limits": {"bot": {"usd_per_month": 2.5}}}})
    await sign_in(newcomer)
    csrf = token((await newcomer.get("/access")).text)
    asked = {"csrf": csrf, "name": "shop", "tenant": "demo", "requests_per_minute": "60", "tokens_per_day": "90000"}
    asked |= {"usd_per_month": "2.5", "concurrency": ""}
    reply = await newcomer.post("/access/keys", data=asked)
    made = re.search(r'id="new-key">(pk-[^<]*)<', reply.text)
    assert made is not None
    assert reply.headers["cache-control"] == "no-store"
    page = (await newcomer.get("/access")).text
    assert made[1] not in page
    assert "requests per minute 60, tokens per day 90.0\u202fk, usd per month 2.50<" in page
    assert "bot: usd per month 2.5" in page
    path = re.search(r'href="(/access/revoke\?id=[^"]*)"[^>]*>Revoke…<span class="hidden-text"> shop', page)
    assert path is not None
    confirm = (await newcomer.get(path[1])).text
    identity = re.search(r'name="id" value="([^"]*)"', confirm)
    assert identity is not None
    reply = await newcomer.post("/access/revoke", data={"csrf": csrf, "id": identity[1]})
    assert ">revoked</span>" in (await newcomer.get(reply.headers["location"])).text


async def test_who_belongs_to_a_tenant_is_shown_what_is_its_own(new_house: House, newcomer: httpx.AsyncClient) -> None:
    for name in ("shop", "other"):
        new_house.call("POST", "/tenants", {"name": name, "spec": {}})
    new_house.call("POST", "/keys", {"name": "not-theirs", "tenant": "other"})
    made = new_house.call("POST", "/keys", {"name": "boss", "tenant": "shop", "roles": ["admin"]})
    await sign_in(newcomer, made["key"])
    page = (await newcomer.get("/")).text
    shown = re.findall(r'<a href="(/[a-z]*)"', page.partition("<nav")[2].partition("</nav>")[0])
    assert shown == ["/", "/requests", "/playground", "/access"]
    assert ">of shop</small>" in page
    keys = (await newcomer.get("/access")).text
    assert "boss" in keys
    assert "not-theirs" not in keys
    assert "other" not in re.findall(r"<option>([^<]*)</option>", keys)
    assert 'id="h-people"' not in keys
    assert "for this console and the control API alone" not in keys
    refused = await newcomer.get("/models")
    assert refused.status_code == 403
    assert "belongs to the whole installation" in refused.text
    created = await newcomer.post("/access/keys", data={"csrf": token(keys), "name": "till", "tenant": "shop"})
    assert "The key till was made." in created.text


async def test_people_are_shown_with_their_keys(new_house: House, newcomer: httpx.AsyncClient) -> None:
    new_house.call("POST", "/principals", {"name": "rita", "roles": ["operator"]})
    for _ in range(2):
        new_house.call("POST", "/keys", {"name": "r", "principal": "rita"})
    await sign_in(newcomer)
    people = (await newcomer.get("/access")).text.partition('id="h-people"')[2]
    assert re.search(r'rita</th><td>operator</td><td>2</td><td><span class="state good">active', people)


async def test_an_empty_house_says_what_to_do_next(newcomer: httpx.AsyncClient) -> None:
    await sign_in(newcomer)
    for path, told in (
        ("/", "penstock promote NAME:v1.0.0 --to production"),
        ("/requests", "/v1/chat/completions"),
        ("/models", "penstock models push DIR NAME:v1.0.0"),
        ("/experiments", "penstock experiments create -f FILE"),
        ("/access", "penstock tenants create acme"),
        ("/playground", "Playground"),
    ):
        reply = await newcomer.get(path)
        assert reply.status_code == 200, reply.text
        assert told in reply.text


async def test_losing_the_key_ends_the_session(new_house: House, newcomer: httpx.AsyncClient) -> None:
    made = new_house.call("POST", "/keys", {"name": "guest", "roles": ["analyst"]})
    await sign_in(newcomer, made["key"])
    assert (await newcomer.get("/models")).status_code == 200
    new_house.call("POST", f"/keys/{made['id']}/revoke")
    reply = await newcomer.get("/models")
    assert reply.status_code == 303
    assert "penstock_console=" in reply.headers["set-cookie"]


async def test_an_analyst_sees_no_buttons_and_is_told_why(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor, ANALYST)
    page = (await visitor.get("/models/support-bot")).text
    assert "Promote" not in page
    assert "Roll back" not in page
    assert "Your roles do not allow seeing keys" in (await visitor.get("/access")).text
    reply = await visitor.get("/models/support-bot/promote?label=v1.0.0")
    assert reply.status_code == 403
    assert "analyst" in reply.text


async def test_what_is_not_there_is_told(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    for path in (
        "/models/none",
        "/models/support-bot/v9.9.9",
        "/requests/req_none",
        "/experiments/none",
        "/nothing-here",
    ):
        reply = await visitor.get(path)
        assert reply.status_code == 404, path
        assert "Not found" in reply.text


@pytest.mark.parametrize(
    ("answer", "told"),
    [(None, "cannot be reached"), (b"<html>", "no reason"), (b'{"error": {"message": "The disk is full."}}', "full")],
)
async def test_an_api_that_is_down_is_told(answer: bytes | None, told: str) -> None:
    working = True

    def answering(request: httpx.Request) -> httpx.Response:
        if working:
            return httpx.Response(200, json={"name": "ada", "roles": ["admin"]})
        if answer is None:
            raise httpx.ConnectError("refused")
        return httpx.Response(503, content=answer)

    api = httpx.AsyncClient(transport=httpx.MockTransport(answering), base_url="http://api")
    async with console_over(api) as client:
        await sign_in(client)
        working = False
        for path in ("/", "/models"):
            reply = await client.get(path)
            assert reply.status_code == 503
            assert told in reply.text
        assert (await client.get("/live/overview")).status_code == 503


async def test_hostile_names_stay_text(visitor: httpx.AsyncClient, house: House) -> None:
    await sign_in(visitor)
    last = house.call("GET", "/requests")["requests"][1]["id"]
    quoted = str(httpx.QueryParams({"q": HOSTILE})).removeprefix("q=").replace("+", "%20")
    shown = [*PAGES, f"/requests/{last}", "/models/support-bot/v1.1.0"]
    asked = [f"/requests?{name}={quoted}" for name in ("route", "arm", "outcome")]
    asked += [
        f"/{quoted}",
        f"/models/{quoted}",
        f"/models/support-bot/rollback?environment={quoted}",
        f"/?done={quoted}",
    ]
    asked += [
        f"/access/revoke?id={quoted}",
        f"/sign-in?next={quoted}",
        f"/playground?model={quoted}",
        f"/?window={quoted}",
    ]
    seen = 0
    for path in (*shown, *asked):
        text = (await visitor.get(path)).text
        assert "<script>alert" not in text, path
        assert "<img src=x" not in text, path
        seen += "alert(1)" in text
    assert seen >= 12


async def test_filters_and_pages_of_requests(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    page = (await visitor.get("/requests", params={"arm": "control"})).text
    older = re.search(r'rel="next" href="([^"]*)"', page)
    assert older is not None
    assert "arm=control" in older[1]
    assert "treatment</a>" not in page
    second = (await visitor.get(older[1].replace("&amp;", "&"))).text
    first_ids, second_ids = (set(re.findall(r'href="/requests/(req_[^"]*)"', text)) for text in (page, second))
    assert first_ids
    assert second_ids
    assert not first_ids & second_ids


async def test_a_request_shows_its_way(visitor: httpx.AsyncClient, house: House) -> None:
    await sign_in(visitor)
    asked = house.call("GET", "/requests", arm="control", outcome="ok")["requests"][0]
    text = (await visitor.get(f"/requests/{asked['id']}")).text
    assert len(asked["trace_id"]) == 32
    for part in (
        asked["digest"],
        asked["trace_id"],
        asked["user"],
        "Wait for the first token",
        "support-bot:v1.0.0",
        "arm control",
    ):
        assert part in text
    assert "success" in text


async def test_content_is_shown_to_who_asks_and_may(newcomer: httpx.AsyncClient, new_house: House) -> None:
    kept, without = exchange(1, 1000.0, tenant="demo"), exchange(2, 1000.0, tenant="demo")
    key = new_house.keys.key_of("demo", "")
    said = Said(messages=(("user", f"Where is it? {HOSTILE}"),), replies=((0, "content", "On its way."),))
    content = Content(key.id, key.seal("demo", kept.id, list(said.messages), list(said.replies)), masked=True)
    new_house.ingest([msgspec.structs.replace(kept, content=content), without])
    await sign_in(newcomer)
    page = (await newcomer.get(f"/requests/{kept.id}")).text
    assert "Show what was said" in page
    assert "On its way." not in page
    assert "None is kept" in (await newcomer.get(f"/requests/{without.id}?content=show")).text
    page = (await newcomer.get(f"/requests/{kept.id}?content=show")).text
    assert "On its way." in page
    assert "Where is it? &lt;script&gt;" in page
    assert HOSTILE not in page
    assert "audit trail" in page
    events = [(one["action"], one["subject"]) for one in new_house.call("GET", "/audit", subject=kept.id)]
    assert events == [("content.read", kept.id)]
    new_house.call("POST", "/subjects/forget", {"tenant": "demo", "everyone": True})
    page = (await newcomer.get(f"/requests/{kept.id}?content=show")).text
    assert "was destroyed" in page
    assert "On its way." not in page
    newcomer.cookies.clear()
    await sign_in(newcomer, ANALYST)
    assert "content:read" in (await newcomer.get(f"/requests/{kept.id}?content=show")).text


async def test_verdicts_are_in_words(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    text = (await visitor.get("/experiments/support-bot-1-1")).text
    assert "Treatment is better." in text
    assert "at 95 % confidence at every look" in text
    assert "of the way to the limit" in text
    assert "own targets serve all" in text
    planned = (await visitor.get("/experiments/echo-warmth")).text
    for part in (
        "It is too early to tell.",
        "Planned looks",
        "±2.963",
        "too few units",
        "not yet taken",
        "likely better",
    ):
        assert part in planned
    latency = (await visitor.get("/experiments/support-bot-1-1", params={"metric": "latency"})).text
    assert "Latency: treatment minus control" in latency
    assert "Back to success" in latency
    assert (await visitor.get("/experiments/support-bot-1-1", params={"metric": "beauty"})).status_code == 404
    assert "Not started." in (await visitor.get("/experiments/support-bot-draft")).text
    assert "It is too early to tell." in (await visitor.get("/")).text


async def test_the_overview_shows_figures_and_places(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    text = (await visitor.get("/")).text
    for part in ("production", "staging", "v1.1.0", "gateway-0", "Recent requests", "$0.000012", "data-chart=", "p95"):
        assert part in text


async def test_the_overview_tells_who_refuses_what(new_house: House, newcomer: httpx.AsyncClient) -> None:
    await sign_in(newcomer)
    report = {
        "worker": "gateway-1",
        "host": "rack-7",
        "generation": 1,
        "faults": [{"kind": "route", "name": HOSTILE, "why": "it leads to a pool that is not there"}],
        "fault_count": 1,
    }
    headers = {"authorization": "Bearer service"}
    for told in (report, {"worker": "gateway-2", "refused": "generation 9: it cannot be read"}):
        assert new_house.http.post(f"{new_house.url}/internal/v1/report", json=told, headers=headers).status_code == 200
    for path in ("/", "/health"):
        text = (await newcomer.get(path)).text
        assert "rack-7" in text
        assert "it leads to a pool that is not there" in text
        assert "generation 9: it cannot be read" in text
        assert HOSTILE not in text, "escaped"
    assert "snapshot_refused" in text
    assert "penstock apply -f FILE" in text


async def test_the_overview_tells_what_fires(new_house: House, newcomer: httpx.AsyncClient) -> None:
    await sign_in(newcomer)
    assert "Alerts that fire" not in (await newcomer.get("/")).text
    alert = {
        "status": "firing",
        "fingerprint": "f1",
        "labels": {"alertname": "PenstockPoolDown", "severity": "page"},
        "annotations": {"summary": f"No replica of {HOSTILE} answers.", "runbook_url": "docs/runbooks/pool-down.md"},
        "startsAt": "2026-03-01T10:00:00Z",
    }
    headers = {"authorization": f"Bearer {monitoring_token(new_house.control)}"}
    told = {"version": "4", "alerts": [alert]}
    assert new_house.http.post(f"{new_house.url}/api/v1/alerts", json=told, headers=headers).status_code == 200
    text = (await newcomer.get("/")).text
    assert "PenstockPoolDown" in text
    assert 'href="/docs/runbooks/pool-down.md"' in text
    assert "No replica takes requests" in (await newcomer.get("/docs/runbooks/pool-down.md")).text
    assert HOSTILE not in text, "escaped"


async def sends(visitor: httpx.AsyncClient, path: str, names: set[str]) -> None:
    """Returns once a live page has sent these pieces, and no other."""
    seen = set()
    async with visitor.stream("GET", path) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        async for line in reply.aiter_lines():
            if line.startswith("event: "):
                seen.add(line.removeprefix("event: "))
            if seen == names:
                break
    assert seen == names


async def test_live_pages_send_their_pieces(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    for path, names in (
        ("/live/overview", {"alerts", "figures", "charts", "state", "recent"}),
        ("/live/experiments/echo-warmth", {"verdict", "results"}),
    ):
        await sends(visitor, path, names)
    assert (await visitor.get("/live/experiments/none")).status_code == 404


async def test_the_playground_without_script(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    csrf = token((await visitor.get("/playground")).text)
    fields = {"csrf": csrf, "model": "support-bot", "message": "Where is it?", "temperature": "0.5", "max_tokens": "64"}
    text = (await visitor.post("/playground", data=fields)).text
    assert "You can follow order 4471902 under My orders." in text
    assert "support-bot:v1.1.0" in text
    assert "21 in, 7 out" in text


async def test_the_playground_sends_what_the_form_says(gateway: FakeGateway, visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    csrf = token((await visitor.get("/playground")).text)
    fields = {
        "csrf": csrf,
        "model": "support-bot",
        "message": "a\r\nb",
        "system": "Be brief.",
        "temperature": "",
        "max_tokens": "5",
    }
    await visitor.post("/playground", data=fields)
    body = gateway.seen[-1]
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a\nb"}]
    assert body["max_tokens"] == 5
    assert "temperature" not in body


@pytest.mark.parametrize(
    ("message", "told"), [("refuse", "Over the limit of 5 requests"), ("break", "The engine broke off.")]
)
async def test_the_playground_tells_what_went_wrong(visitor: httpx.AsyncClient, message: str, told: str) -> None:
    await sign_in(visitor)
    csrf = token((await visitor.get("/playground")).text)
    fields = {"csrf": csrf, "model": "support-bot", "message": message}
    assert told in (await visitor.post("/playground", data=fields)).text
    assert told in (await visitor.post("/playground/stream", data=fields)).text


async def test_the_playground_streams_events(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    csrf = token((await visitor.get("/playground")).text)
    fields = {"csrf": csrf, "model": "support-bot", "message": "hello"}
    reply = await visitor.post("/playground/stream", data=fields)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert [line for line in reply.text.splitlines() if line.startswith("event")] == ["event: delta"] * 7 + [
        "event: facts"
    ] * 2


async def test_an_answer_is_text_never_markup(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    csrf = token((await visitor.get("/playground")).text)
    text = (await visitor.post("/playground", data={"csrf": csrf, "model": "support-bot", "message": "hostile"})).text
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text


async def test_an_analyst_brings_a_key_of_a_tenant(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor, ANALYST)
    page = await visitor.get("/playground")
    assert "belongs to none" in page.text
    csrf = token(page.text)
    fields = {"csrf": csrf, "model": "support-bot", "message": "hello"}
    assert (await visitor.post("/playground/stream", data=fields)).status_code == 403
    await visitor.post("/playground/key", data={"csrf": csrf, "gateway_key": KEY})
    assert "My orders." in (await visitor.post("/playground", data=fields)).text
    await visitor.post("/playground/key", data={"csrf": csrf, "gateway_key": ""})
    assert (await visitor.post("/playground/stream", data=fields)).status_code == 403


async def test_api_paths_that_nobody_serves_are_answered_in_the_apis_shape(visitor: httpx.AsyncClient) -> None:
    reply = await visitor.get("/api/v1/nothing")
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "not_found"


async def test_forms_are_bounded(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    reply = await visitor.post("/playground", data={"message": "x" * 1_100_000})
    assert reply.status_code == 413
    reply = await visitor.post("/playground", json={"message": "x"})
    assert reply.status_code == 400


async def test_requests_are_found_by_what_is_known_of_them(visitor: httpx.AsyncClient, house: House) -> None:
    await sign_in(visitor)
    failed = next(
        one
        for one in house.call("GET", "/requests", outcome="error", limit=500)["requests"]
        if one["error"] == "upstream_failed"
    )
    start = dt.datetime.fromtimestamp(failed["at"] - 1, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    end = dt.datetime.fromtimestamp(failed["at"] + 2, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    link = f'href="/requests/{failed["id"]}"'
    for filters, found in (
        ({"id": failed["id"][-9:]}, True),
        ({"id": "req_of_nobody"}, False),
        ({"error": "upstream_failed", "from": start, "to": end}, True),
        ({"error": "no_such_code"}, False),
        ({"model": "support-bot", "tenant": "demo", "id": failed["id"]}, True),
        ({"model": "another", "id": failed["id"]}, False),
        ({"id": failed["id"], "to": start}, False),
        ({"id": failed["id"], "min_latency_ms": str(failed["phases"]["done"] / 1e6 - 0.001)}, True),
        ({"id": failed["id"], "min_latency_ms": str(failed["phases"]["done"] / 1e6 + 0.001)}, False),
        ({"id": failed["id"], "min_cost_usd": str(failed["cost_nanousd"] / 1e9)}, True),
        ({"id": failed["id"], "min_cost_usd": str(failed["cost_nanousd"] / 1e9 + 0.001)}, False),
        ({"id": failed["id"], "finding": "no-such-rule"}, False),
    ):
        page = await visitor.get("/requests", params=filters)
        assert page.status_code == 200
        assert (link in page.text) == found, filters
        assert found or "No request fits" in page.text
    assert (await visitor.get("/requests", params={"from": "yesterday"})).status_code == 400
    slow = (await visitor.get("/requests", params={"min_latency_ms": "100", "arm": "control"})).text
    older = re.search(r'rel="next" href="([^"]*)"', slow)
    assert older is not None
    assert "min_latency_ms=100" in older[1]
    assert '<details class="more" open>' in slow
