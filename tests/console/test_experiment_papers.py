"""What is read and taken away of an experiment in the console: its exports, its report, answers side by side; and who sees which button."""

import html
import json
import re
from typing import Any

import httpx
import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.console.word_diff import apart
from penstock.core.exchange import Content, Exchange, Pair, Record
from tests.console.conftest import sign_in
from tests.console.house import ANALYST, House, exchange, furnish
from tests.console.test_strategies_page import begin
from tests.control.test_pairs import INTERLEAVED, SHADOW, preference, shown

RANKED = INTERLEAVED | {
    "arms": [{"name": name, "pool": pool} for name, pool in (("control", "old"), ("new", "new"), ("newer", "new"))]
}


@given(st.text(max_size=60), st.text(max_size=60))
def test_pieces_make_up_both_texts_and_what_is_shared_is_equal(first: str, other: str) -> None:
    one, two = apart(first, other)
    assert ("".join(span.text for span in one), "".join(span.text for span in two)) == (first, other)
    shared = ["".join(span.text for span in side if not span.own) for side in (one, two)]
    assert shared[0] == shared[1]


def test_only_what_differs_is_marked() -> None:
    one, two = apart("It costs 5 euros today.", "It costs 6 euros today.")
    assert [span.text for span in one if span.own] == ["5"]
    assert [span.text for span in two if span.own] == ["6"]


async def test_exports_and_the_report_hold_what_the_api_tells(new_house: House, newcomer: httpx.AsyncClient) -> None:
    begin(new_house, SHADOW | {"hypothesis": "Nobody notices"}, "e")
    await sign_in(newcomer)
    page = (await newcomer.get("/experiments/e")).text
    for link in re.findall(r'class="papers">(.*?)</p>', page, re.DOTALL)[0].split("<a ")[1:]:
        path = html.unescape(re.findall(r'href="([^"]+)"', link)[0])
        got = await newcomer.get(path)
        assert got.status_code == 200, path
    exported = await newcomer.get("/experiments/e/export?format=json")
    assert json.loads(exported.text)["spec"]["hypothesis"] == "Nobody notices"
    assert exported.headers["content-disposition"] == 'attachment; filename="e.json"'
    sheet = await newcomer.get("/experiments/e/export?format=csv&table=epochs")
    assert sheet.text.splitlines()[0] == "experiment,epoch,started_at,arm,share"
    report = html.unescape((await newcomer.get("/experiments/e/report")).text)
    for words in ("Report on e", "Hypothesis: Nobody notices", "A shadow on bot", "Shares over time", "Decided by"):
        assert words in report
    assert (await newcomer.get("/experiments/e/export?format=xml")).status_code == 400


async def test_several_versions_stand_on_one_scale(new_house: House, newcomer: httpx.AsyncClient) -> None:
    begin(new_house, RANKED, "e")
    records: list[Record] = []
    for number in range(120):
        arm = ("new", "newer")[number % 2]
        one = shown(number, ("control", arm))
        assert one.pair is not None
        records.append(msgspec.structs.replace(one, pair=msgspec.structs.replace(one.pair, arm=arm)))
        records.append(preference(number, int(number // 2 % 10 < (6 if arm == "new" else 9))))
    new_house.ingest(records)
    new_house.do(new_house.evaluator.round())
    await sign_in(newcomer)
    page = html.unescape((await newcomer.get("/experiments/e")).text)
    told = new_house.call("GET", "/experiments/e")["verdict"]["ranking"]
    table = page.split("All versions on one scale")[1].split("</section>")[0]
    assert [one["arm"] for one in told] == ["newer", "new", "control"]
    assert re.findall(r'rowheader">([^<]+)<', table) == ["newer", "new", "control"]
    assert any(reason.startswith("By all votes together newer is the strongest of 3") for reason in page.split("<p>"))


def kept(house: House, number: int, reply: str, **changes: Any) -> Exchange:
    """A request whose content is kept under a real key."""
    one = exchange(number, house.clock(), tenant="demo", status=200, **changes)
    key = house.keys.key_of("demo", "")
    sealed = key.seal("demo", one.id, [("user", "What does it cost?")], [(0, "content", reply)])
    return msgspec.structs.replace(one, content=Content(key.id, sealed))


async def test_answers_stand_side_by_side_with_what_they_say_apart(
    new_house: House, newcomer: httpx.AsyncClient
) -> None:
    begin(new_house, SHADOW, "e")
    shared: dict[str, Any] = {"experiment": "e", "route": "bot", "unit": "u", "user": ""}
    first = kept(new_house, 1, "It costs 5 euros <b>today</b>.", arm="control", epoch=0, **shared)
    second = kept(
        new_house, 2, "It costs 6 euros <b>today</b>.", arm="new", epoch=1,
        pair=Pair(arm="control", of=first.id, similarity=900_000, judged="other"), **shared,
    )  # fmt: skip
    new_house.ingest([first, second])
    [sample] = new_house.call("GET", "/experiments/e/samples")["samples"]
    assert [(one["arm"], one["request"]) for one in sample["answers"]] == [("control", first.id), ("new", second.id)]
    await sign_in(newcomer)
    page = (await newcomer.get("/experiments/e/answers")).text
    assert "What does it cost?" in page
    assert re.findall(r"<mark>(.*?)</mark>", page) == ["5", "6"]
    assert "<b>today" not in page, "escaped"
    assert re.search(r"90\s?% alike; the judge says: control", page)
    await sign_in(newcomer, ANALYST)
    refused = await newcomer.get("/experiments/e/answers")
    assert refused.status_code == 403
    assert "Answers side by side" not in (await newcomer.get("/experiments/e")).text


async def test_without_kept_content_there_is_nothing_to_read(new_house: House, newcomer: httpx.AsyncClient) -> None:
    begin(new_house, SHADOW, "e")
    await sign_in(newcomer)
    page = (await newcomer.get("/experiments/e/answers")).text
    assert "No answer of this experiment can be read" in page


async def test_a_canary_is_paused_by_who_may_deploy_and_an_analyst_sees_no_button(
    new_house: House, newcomer: httpx.AsyncClient
) -> None:
    furnish(new_house)
    told = new_house.call("POST", "/canaries", {"model": "support-bot", "label": "v1.0.0", "reason": "to see"})
    pages = (f"/experiments/{told['name']}", "/canaries/support-bot")
    buttons = re.compile(r'href="/(?:experiments|canaries)/[^"]+/(pause|stop|kill|abort|promote)"')
    await sign_in(newcomer)
    seen = [set(buttons.findall((await newcomer.get(path)).text)) for path in pages]
    assert seen == [{"pause"}, {"abort", "promote", "pause"}]  # as an experiment it ends as the canary that it is
    await sign_in(newcomer, ANALYST)
    for path in pages:
        assert not buttons.findall((await newcomer.get(path)).text), path
