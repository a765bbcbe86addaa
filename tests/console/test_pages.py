"""The pages as a browser without script sees them."""

import re

import httpx
import pytest

from tests.console.conftest import Site, sign_in, token
from tests.console.fake_api import ADMIN, ANALYST
from tests.console.fake_gateway import KEY

PAGES = [
    "/",
    "/?window=86400",
    "/requests",
    "/requests?route=support-bot&outcome=error",
    "/models",
    "/models/support-bot",
    "/models/support-bot/v1.0.0",
    "/models/support-bot/promote?label=v1.0.0",
    "/models/support-bot/rollback?environment=production",
    "/experiments",
    "/experiments/support-bot-1-1",
    "/experiments/support-bot-1-1/stop",
    "/playground",
    "/access",
    "/access/revoke?id=key_01hv2",
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
    assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
    assert re.findall(r"\son[a-z]+=|\sstyle=|javascript:", text) == []
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


async def test_the_cookie_is_for_https_alone_where_the_page_was(site: Site) -> None:
    async with site.client() as client:
        reply = await client.get("https://console.test/sign-in")
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


CHANGES = [
    ("/models/support-bot/promote", {"label": "v1.0.0", "environment": "production"}),
    ("/models/support-bot/rollback", {"environment": "production"}),
    ("/experiments/support-bot-1-1/stop", {}),
    ("/access/keys", {"name": "x"}),
    ("/access/revoke", {"id": "key_01hv2"}),
    ("/playground", {"model": "support-bot", "message": "hello"}),
    ("/playground/stream", {"model": "support-bot", "message": "hello"}),
    ("/playground/key", {"gateway_key": "x"}),
]


@pytest.mark.parametrize(("path", "fields"), CHANGES)
@pytest.mark.parametrize("csrf", [None, "", "guessed"])
async def test_a_form_of_another_site_changes_nothing(
    site: Site, visitor: httpx.AsyncClient, path: str, fields: dict[str, str], csrf: str | None
) -> None:
    await sign_in(visitor)
    before = len(site.gateway.seen)
    reply = await visitor.post(path, data=fields if csrf is None else {**fields, "csrf": csrf})
    assert reply.status_code in {400, 403}  # 400: without any field it is no form
    assert site.api.calls == []
    assert len(site.gateway.seen) == before


async def test_the_changes_reach_the_api(site: Site, visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    csrf = token((await visitor.get("/")).text)
    for path, fields in CHANGES[:5]:
        reply = await visitor.post(path, data={**fields, "csrf": csrf})
        assert reply.status_code in {200, 303}, path
    assert [path for path, _ in site.api.calls] == [
        "/promote",
        "/rollback",
        "/experiments/support-bot-1-1/stop",
        "/keys",
        "/keys/key_01hv2/revoke",
    ]


async def test_a_new_key_is_shown_once(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    csrf = token((await visitor.get("/access")).text)
    reply = await visitor.post("/access/keys", data={"csrf": csrf, "name": "shop-website", "tenant": "demo"})
    assert "psk-new-key-shown-once" in reply.text
    assert reply.headers["cache-control"] == "no-store"
    assert "psk-new-key-shown-once" not in (await visitor.get("/access")).text


async def test_an_analyst_sees_no_buttons_and_is_told_why(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor, ANALYST)
    page = (await visitor.get("/models/support-bot")).text
    assert "Promote" not in page
    assert "Roll back" not in page
    assert "Your roles do not allow seeing keys" in (await visitor.get("/access")).text
    reply = await visitor.get("/models/support-bot/promote?label=v1.0.0")
    assert reply.status_code == 403
    assert "analyst" in reply.text


async def test_what_the_api_refuses_is_told_in_its_words(site: Site, visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    reply = await visitor.get("/models/none")
    assert reply.status_code == 404
    assert "Not found" in reply.text
    site.api.down = True
    reply = await visitor.get("/models")
    assert reply.status_code == 503
    assert "disk is full" in reply.text


async def test_an_api_that_cannot_be_reached_is_told(site: Site) -> None:
    away = Site(site.api, site.gateway, site.gateway_url, httpx.AsyncClient(base_url="http://127.0.0.1:1"))
    async with site.client() as visitor, away.client() as same:
        await sign_in(visitor)
        same.cookies = visitor.cookies
        reply = await same.get("/models")
    assert reply.status_code == 503
    assert "cannot be reached" in reply.text


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


async def test_hostile_names_stay_text(site: Site, visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    site.api.names = {"model": HOSTILE, "user": HOSTILE, "reason": HOSTILE}
    site.api.card = HOSTILE
    quoted = httpx.URL("http://x/", params={"q": HOSTILE}).query.decode().removeprefix("q=").replace("+", "%20")
    for path in ("/", "/requests", "/models", f"/models/{quoted}", f"/models/{quoted}/v1.1.0", "/experiments"):
        reply = await visitor.get(path)
        assert "<script>alert" not in reply.text, path
        assert "<img src=x" not in reply.text, path
    for parameter in ("route", "arm", "outcome", "status", "before"):
        reply = await visitor.get("/requests", params={parameter: HOSTILE})
        assert "<script>alert" not in reply.text
    for path in (f"/{quoted}", f"/models/support-bot/rollback?environment={quoted}", f"/access/revoke?id={quoted}"):
        assert "<script>alert" not in (await visitor.get(path)).text


async def test_filters_and_pages_of_requests(visitor: httpx.AsyncClient, site: Site) -> None:
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


async def test_a_request_shows_its_way(visitor: httpx.AsyncClient, site: Site) -> None:
    await sign_in(visitor)
    exchange = site.api.exchanges[3]
    text = (await visitor.get(f"/requests/{exchange.id}")).text
    for part in (
        exchange.digest,
        exchange.trace,
        "Wait for the first token",
        "cards",
        "just what I asked",
        exchange.arm,
    ):
        assert part in text


async def test_the_verdict_is_in_words(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    text = (await visitor.get("/experiments/support-bot-1-1")).text
    assert "Treatment is better." in text
    assert "+14.0 points to +28.2 points" in text
    assert "9\u202f% of the way to the limit" in text


async def test_the_playground_without_script(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    csrf = token((await visitor.get("/playground")).text)
    fields = {"csrf": csrf, "model": "support-bot", "message": "Where is it?", "temperature": "0.5", "max_tokens": "64"}
    text = (await visitor.post("/playground", data=fields)).text
    assert "You can follow order 4471902 under My orders." in text
    assert "support-bot:v1.1.0" in text
    assert "21 in, 7 out" in text


async def test_the_playground_sends_what_the_form_says(site: Site, visitor: httpx.AsyncClient) -> None:
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
    body = site.gateway.seen[-1]
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
