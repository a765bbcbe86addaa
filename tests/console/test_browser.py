"""The pages in Chromium: as they look, live, with and without script. Any console error or policy violation fails."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.console.fake_gateway import FakeGateway
from tests.console.house import ADMIN, House, exchange

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATHS = [
    "/",
    "/requests",
    "/requests?outcome=error&error=upstream_failed&min_latency_ms=1",
    "/models",
    "/models/support-bot",
    "/models/support-bot/v1.1.0",
    "/models/support-bot/v1.1.0/readiness",
    "/models/support-bot/diff?a=v1.0.0&b=v1.1.0",
    "/datasets",
    "/datasets/talks",
    "/models/support-bot/promote?label=v1.0.0",
    "/models/support-bot/rollback?environment=production",
    "/experiments",
    "/experiments/support-bot-1-1",
    "/experiments/echo-warmth",
    "/experiments/support-bot-draft",
    "/experiments/echo-warmth/stop",
    "/experiments/support-bot-1-1/report",
    "/experiments/support-bot-1-1/answers",
    "/playground",
    "/access",
]
WAIT_MS = 30_000
expect.set_options(timeout=WAIT_MS)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="Debian's chromium is not installed: make system-packages"),
]

Visiting = Callable[..., "Visited"]


class Visited:
    """A page of somebody who has signed in, and what the browser complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        page.on("requestfailed", lambda request: self._failed(request.url, request.failure or ""))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def _failed(self, url: str, failure: str) -> None:
        if "ERR_ABORTED" not in failure:  # of live streams, when the page is left
            self.complaints.append(f"{url}: {failure}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield chromium
        chromium.close()


@contextmanager
def visit(
    browser: Browser, house: House, *, width: int = 1280, scheme: str = "light", script: bool = True
) -> Iterator[Visited]:
    """A visitor at work; at the end there must be no complaint."""
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
        timezone_id="Asia/Tokyo",
        locale="en-GB",
        java_script_enabled=script,
    )
    context.set_default_timeout(WAIT_MS)
    visited = Visited(context.new_page())
    visited.page.goto(house.url + "/sign-in")
    visited.page.fill("#key", ADMIN)
    visited.page.click("button.main")
    expect(visited.page.locator("h1")).to_have_text("Overview")
    yield visited
    context.close()
    assert visited.complaints == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (375, "dark")])
def test_pages_fit_and_nothing_complains(browser: Browser, house: House, width: int, scheme: str) -> None:
    request = house.call("GET", "/requests", outcome="ok")["requests"][0]["id"]
    with visit(browser, house, width=width, scheme=scheme) as visited:
        page = visited.page
        for path in (*PATHS, f"/requests/{request}"):
            page.goto(house.url + path, wait_until="load")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            assert page.locator("h1").count() == 1, path
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert background == ("rgb(15, 19, 21)" if scheme == "dark" else "rgb(248, 248, 246)")


def test_everything_has_a_name(browser: Browser, house: House) -> None:
    with visit(browser, house) as visited:
        for path in PATHS:
            visited.page.goto(house.url + path)
            nameless = visited.page.evaluate(
                """() => [...document.querySelectorAll("input:not([type=hidden]), select, textarea, button, a, img, section")].filter(e =>
                    e.matches("input, select, textarea") ? !e.labels.length
                    : e.matches("img") ? !e.hasAttribute("alt")
                    : e.matches("section") ? false
                    : !e.textContent.trim()).map(e => e.outerHTML)"""
            )
            assert nameless == [], path
            twice = visited.page.evaluate(
                """() => { const seen = new Set(); return [...document.querySelectorAll("[id]")].map(e => e.id)
                    .filter(id => seen.has(id) || !seen.add(id)); }"""
            )
            assert twice == [], path


def test_requests_are_filtered_without_script(browser: Browser, house: House) -> None:
    with visit(browser, house, width=375, scheme="dark", script=False) as visited:
        page = visited.page
        page.goto(house.url + "/requests")
        page.get_by_text("More filters").click()
        page.get_by_label("Error code").fill("upstream_failed")
        page.get_by_label("From, UTC").fill("2020-01-01T00:00")
        page.get_by_role("button", name="Filter").click()
        expect(page.locator(".rows tbody tr").first).to_contain_text("upstream_failed")
        expect(page.get_by_label("Error code")).to_have_value("upstream_failed")
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        page.locator(".rows tbody th a").first.click()
        expect(page.get_by_role("heading", name="Where the time went")).to_be_visible()


def test_keyboard_goes_past_the_menu(browser: Browser, house: House) -> None:
    with visit(browser, house) as visited:
        visited.page.keyboard.press("Tab")
        expect(visited.page.locator(":focus")).to_have_text("Skip to the page")
        visited.page.keyboard.press("Enter")
        expect(visited.page.locator("main")).to_be_focused()


def test_charts_are_drawn_and_times_are_the_readers(browser: Browser, house: House) -> None:
    with visit(browser, house) as visited:
        page = visited.page
        expect(page.locator(".plot canvas")).to_have_count(4)
        expect(page.locator("main time").first).not_to_contain_text("UTC")
        page.emulate_media(color_scheme="dark")
        expect(page.locator(".plot canvas")).to_have_count(4)
        page.goto(house.url + "/experiments/support-bot-1-1")
        expect(page.locator(".plot canvas")).to_have_count(1)
        page.click("summary")
        assert page.locator("details tbody tr").count() > 3


def test_the_overview_is_live_and_keeps_still_when_told(browser: Browser, house: House) -> None:
    with visit(browser, house) as visited:
        page = visited.page
        page.click("#c-latency summary")
        house.ingest([exchange(300_001, house.clock())])
        expect(page.locator(f"#x-{exchange(300_001, 0).id}")).to_be_visible(timeout=WAIT_MS)
        expect(page.locator("#c-latency tbody").first).to_be_visible(timeout=WAIT_MS)
        expect(page.locator(".plot canvas")).to_have_count(4)
        page.click("[data-pause]")
        expect(page.locator("[data-pause]")).to_have_attribute("aria-pressed", "true")
        unseen = exchange(300_002, house.clock())
        page.evaluate(
            """id => document.addEventListener("htmx:sseBeforeMessage", (event) => {
                if (event.detail.data.includes(id)) document.body.dataset.told = id;
            })""",
            unseen.id,
        )
        house.ingest([unseen])
        expect(page.locator(f"body[data-told={unseen.id}]")).to_have_count(1, timeout=WAIT_MS)
        expect(page.locator(f"#x-{unseen.id}")).to_have_count(0)
        page.click("[data-pause]")
        house.ingest([exchange(300_003, house.clock())])
        expect(page.locator(f"#x-{exchange(300_003, 0).id}")).to_be_visible(timeout=WAIT_MS)


def test_the_playground_streams(browser: Browser, house: House) -> None:
    with visit(browser, house) as visited:
        page = visited.page
        page.goto(house.url + "/playground")
        page.fill("#message", "Where is my order 4471902?")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#answer")).to_have_text("You can follow order 4471902 under My orders.")
        expect(page.locator("#facts")).to_contain_text("support-bot:v1.1.0")
        expect(page.locator("#facts")).to_contain_text("$0.000012")
        page.click("#facts a")
        expect(page.locator("h1")).to_contain_text("req_")


def test_stopping_an_answer_cancels_it_at_the_gateway(browser: Browser, house: House, gateway: FakeGateway) -> None:
    gateway.left.clear()
    with visit(browser, house) as visited:
        page = visited.page
        page.goto(house.url + "/playground")
        page.fill("#message", "stall")
        page.click("form[data-stream] [type=submit]")
        expect(page.locator("#answer")).to_contain_text("You")
        page.click("#stop")
        expect(page.locator("#trouble")).to_contain_text("Stopped")
        assert gateway.left.wait(30)


def test_what_went_wrong_is_told_and_answers_are_text(browser: Browser, house: House) -> None:
    with visit(browser, house) as visited:
        page = visited.page
        page.goto(house.url + "/playground")
        for message, told in (("refuse", "Over the limit"), ("break", "The engine broke off.")):
            page.fill("#message", message)
            page.click("form[data-stream] [type=submit]")
            expect(page.locator("#trouble")).to_contain_text(told)
        page.fill("#message", "hostile")
        page.click("form[data-stream] [type=submit]")
        expect(page.locator("#answer")).to_contain_text("<img src=x onerror=alert(1)>")


def test_without_script_everything_is_there(browser: Browser, house: House) -> None:
    with visit(browser, house, script=False, width=375) as visited:
        page = visited.page
        expect(page.locator(".plot").first).to_be_hidden()
        expect(page.locator("[data-pause]")).to_be_hidden()
        page.click("#c-latency summary")
        expect(page.locator("#c-latency tbody tr").first).to_be_visible()
        expect(page.locator("main time").first).to_contain_text("UTC")
        page.goto(house.url + "/playground")
        page.fill("#message", "Where is my order 4471902?")
        page.click("form[data-stream] [type=submit]")
        expect(page.locator("#answer")).to_have_text("You can follow order 4471902 under My orders.")
        expect(page.locator("#facts")).to_contain_text("$0.000012")


def test_rolling_back_without_script(browser: Browser, new_house: House) -> None:
    for label in ("v1.0.0", "v1.1.0"):
        if label == "v1.0.0":
            new_house.call("PUT", "/environments/production", {"name": "production", "spec": {}})
        new_house.push(label)
        new_house.promote(label)
    with visit(browser, new_house, script=False) as visited:
        page = visited.page
        page.goto(new_house.url + "/models/support-bot")
        page.click("text=Roll back…")
        expect(page.locator("dl")).to_contain_text("v1.1.0")
        page.fill("#reason", "wrong refund terms")
        page.click("button.risky")
        expect(page.locator(".notice")).to_contain_text("Rolled back.")
        expect(page.locator("main")).to_contain_text(re.compile("rolled back by admin .*: wrong refund terms"))


def test_signing_out(browser: Browser, house: House) -> None:
    with visit(browser, house) as visited:
        visited.page.click("text=Sign out")
        expect(visited.page.locator("h1")).to_have_text("Sign in")
        visited.page.goto(house.url + "/models")
        expect(visited.page.locator("h1")).to_have_text("Sign in")
