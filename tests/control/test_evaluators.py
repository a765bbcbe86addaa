"""Evaluators: answers of a sample scored after the fact, each counted once, in its arm and epoch, whatever fails meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import select

from penstock.control.context import SYSTEM
from penstock.control.evaluators.ask import Asker, Held, NotAnswered
from penstock.control.evaluators.kind import evaluator_kinds
from penstock.control.evaluators.loops import Evaluators, Worker
from penstock.control.evaluators.store import used_by
from penstock.control.experiments.store import load_statistics
from penstock.control.kinds import ResourceKind
from penstock.control.specs.evaluator import EvaluatorSpec, ReferencesSpec
from penstock.core.errors import BadRequest, Conflict
from penstock.core.exchange import Content, Exchange, Observation, Pair
from penstock.experiments.counted import Statistics
from penstock.experiments.references import ReferenceSet
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.masterkey import Wrapping
from penstock.store import schema
from penstock.store import schema_evaluators as tables
from penstock.store import schema_experiments as ingested
from penstock.store.schema_engagement import visits
from penstock.store.sql import Database
from tests.control.bed import AB, T0, Bed, exchange
from tests.control.house import House, eventually
from tests.control.judge import Judge, biased
from tests.control.test_experiments_killed import Killed, killed_at

REFERENCES, EVALUATOR = evaluator_kinds()
KNOWN: dict[str, Any] = {"items": [{"question": "How long may I return it?", "answers": ["30 days"]}]}
JUDGES_POOL = {"adopt": ["http://127.0.0.1:9003"], "model": "judge"}
BOTH: dict[str, Any] = {
    "hypothesis": "the judge prefers the new one",
    "route": "bot",
    "arms": [{"name": "control", "pool": "old"}, {"name": "new", "pool": "new"}],
    "primary": {"metric": "judged", "minimum_effect": 0.2},
    "plan": {"units": 200},
}


class Scene:
    """A bed with keys for content, and evaluators without their loops."""

    def __init__(self, bed: Bed, folder: Path) -> None:
        self.bed = bed
        self.keys = FileKeystore.open(folder / "keys", Wrapping(bytes(32)), clock=lambda: bed.now)
        self.judge = Judge()
        self.gateway = httpx.AsyncClient()

    def content(self, one: Exchange, question: str, answers: Mapping[int, str]) -> Exchange:
        """`one` with content that its subject's key seals."""
        key = self.keys.key_of(one.tenant, f"user/{one.user}")
        replies = [(index, "content", text) for index, text in answers.items()]
        messages = [("system", "Be kind."), ("user", question)]
        sealed = key.seal(one.tenant, one.id, messages, replies)
        return msgspec.structs.replace(one, content=Content(key.id, sealed))

    def said(self, number: int, arm: str, question: str, answer: str, **changes: Any) -> Exchange:
        """An answered request of an experiment, with content."""
        base = {"experiment": "e", "arm": arm, "epoch": 1, "unit": f"u{number}"}
        return self.content(exchange(number, **base | changes), question, {0: answer})

    def worker(self, name: str = "v", known: ReferenceSet | None = None, **spec: Any) -> Worker:
        parsed = EVALUATOR.parse(spec)
        assert isinstance(parsed, EvaluatorSpec)
        control, signal = self.bed.control, self.bed.signal
        return Worker(control, self.keys, signal, name, parsed, references=known, gateway=self.gateway)

    async def declare(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        which = REFERENCES if kind == "References" else EVALUATOR
        async with self.bed.control.change(SYSTEM) as change:
            await which.put(change, name, which.parse(spec), "api")

    async def statistics(self) -> Statistics:
        async with self.bed.control.database.read() as connection:
            return await load_statistics(connection, "e")

    async def mean(self, arm: str, metric: str) -> tuple[int, Any]:
        """How many answers of the arm were scored, and what they scored on average (`1e6` for 1)."""
        moments = (await self.statistics()).moments[1, arm, metric]
        return moments.bottom, moments.top / moments.bottom

    async def counts(self) -> dict[tuple[str, str], int]:
        """By arm and result."""
        found = {}
        for row in await self.bed.table(tables.evaluator_counts):
            found[row["arm"], row["result"]] = row["count"]
        return {key: count for key, count in found.items() if count}

    async def told(self) -> list[Observation]:
        return [
            msgspec.msgpack.decode(row["record"], type=Observation)
            for row in await self.bed.table(ingested.observations)
        ]


@asynccontextmanager
async def scened(database: Database, folder: Path) -> AsyncIterator[Scene]:
    bed = Bed(database, folder)
    await bed.prepare()
    async with bed.control.change(SYSTEM) as change:
        pools = ResourceKind("Pool", "pools")
        await pools.put(change, "judges", pools.parse(JUDGES_POOL), "api")
    scene = Scene(bed, folder)
    scene.gateway.base_url = httpx.URL(await scene.judge.start())
    yield scene
    await scene.gateway.aclose()
    await scene.judge.stop()
    await bed.http.aclose()
    scene.keys.close()


@pytest.fixture
async def scene(sqlite: Database, tmp_path: Path) -> AsyncIterator[Scene]:
    async with scened(sqlite, tmp_path) as made:
        yield made


@pytest.fixture
async def any_scene(database: Database, tmp_path: Path) -> AsyncIterator[Scene]:
    async with scened(database, tmp_path) as made:
        yield made


async def test_accuracy_is_counted_once_in_the_arm_and_epoch_of_the_request(any_scene: Scene) -> None:
    scene, bed = any_scene, any_scene.bed
    await bed.begin(AB)
    answers = [scene.said(n, ("control", "treatment")[n % 2], KNOWN["items"][0]["question"], "30 days" if n % 3 else "a year") for n in range(30)]  # fmt: skip
    unknown = scene.said(40, "control", "Who are you?", "A bot.")
    kept_nothing = exchange(41, experiment="e", arm="treatment", epoch=1, unit="u41")
    outside = scene.content(exchange(42), "How long may I return it?", {0: "30 days"})
    failed = msgspec.structs.replace(scene.said(43, "control", "How long may I return it?", "30 days"), outcome="error")
    await bed.send([*answers, unknown, kept_nothing, outside, failed])
    worker = scene.worker("facts", ReferenceSet(ReferencesSpec.model_validate(KNOWN).references()), references="known")
    assert await worker.step() is False
    assert await scene.mean("control", "accuracy") == (15, pytest.approx(2 / 3))
    assert await scene.mean("treatment", "accuracy") == (15, pytest.approx(2 / 3))
    assert await scene.counts() == {
        ("control", "scored"): 15,
        ("treatment", "scored"): 15,
        ("control", "no_reference"): 1,
        ("treatment", "no_content"): 1,
    }
    before = await scene.statistics()
    await bed.send([scene.said(50, "control", "Who are you?", "A bot.")])
    await worker.step()
    assert await scene.mean("control", "accuracy") == (15, pytest.approx(2 / 3))
    one = (await scene.told())[0]
    assert (one.name, one.evaluator, one.tenant, one.kind) == ("accuracy", "facts", "a", "event")
    assert one.at == T0 + 0.0  # of the answer, not of its score
    events = await bed.table(schema.audit_events)
    read = [row for row in events if row["action"] == "content.read"]
    assert len(read) == 2 and read[0]["subject"] == "evaluator facts" and len(read[0]["detail"]["requests"]) == 31
    assert before.moments[1, "control", "accuracy"] == (await scene.statistics()).moments[1, "control", "accuracy"]


async def test_what_is_done_again_counts_once(scene: Scene) -> None:
    """An evaluator that was killed between its calls and its commit, and two that work at the same time."""
    await scene.bed.begin(AB)
    await scene.bed.send([scene.said(n, "control", "q", "x" * n) for n in range(20)])
    scene.judge.says = lambda _messages: "4"
    scene.judge.gate = asyncio.Event()
    spec: dict[str, Any] = {"judge": {"pool": "judges", "rubric": "Is it kind?"}, "in_flight": 3}
    killed = asyncio.create_task(scene.worker(**spec).step())
    await eventually(lambda: scene.judge.running == 3)
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)
    assert await scene.told() == []
    scene.judge.gate.set()
    await asyncio.gather(scene.worker(**spec).step(), scene.worker(**spec).step())
    await scene.worker(**spec).step()
    assert scene.judge.most_running <= 6
    assert await scene.mean("control", "judge_score") == (20, 750_000)
    assert await scene.counts() == {("control", "scored"): 20}
    assert len(await scene.told()) == 20
    assert {body["model"] for body in scene.judge.asked} == {"(evaluators)/v"}


async def test_random_kills_leave_the_statistics_of_an_undisturbed_run(scene: Scene) -> None:
    """Killed while it asks, and before any of the statements of its transactions."""
    await scene.bed.begin(AB)
    answers = [scene.said(n, ("control", "treatment")[n % 2], "q", "abcd" * (n % 7)) for n in range(80)]
    await scene.bed.send(answers)
    scene.judge.says = lambda messages: str(1 + len(messages[1]["content"]) % 5)
    spec: dict[str, Any] = {"judge": {"pool": "judges", "rubric": "Is it kind?"}, "in_flight": 16}
    for kill_at in (5, 40, 100):
        task = asyncio.create_task(scene.worker(**spec).step())
        await eventually(lambda kill_at=kill_at, task=task: len(scene.judge.asked) >= kill_at or task.done())  # type: ignore[misc]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    died, statement, worker = 0, 0, scene.worker(**spec)
    while True:
        statement += 1
        with killed_at(scene.bed.control.database, statement):
            try:
                if not await worker.step():
                    break
            except Killed:
                died += 1
                continue
        statement = 0  # a page is done: the next one is killed at each of its statements too
    assert died > 15, "one page at least was killed at each of its statements"
    disturbed = {arm: await scene.mean(arm, "judge_score") for arm in ("control", "treatment")}
    expected: dict[str, list[float]] = {"control": [], "treatment": []}
    for n in range(80):
        shown = f"Request:\nsystem: Be kind.\nuser: q\n\nAnswer:\n{'abcd' * (n % 7)}"
        expected[("control", "treatment")[n % 2]].append((len(shown) % 5) / 4 * 1e6)
    assert disturbed == {arm: (40, pytest.approx(sum(values) / 40)) for arm, values in expected.items()}
    assert await scene.counts() == {("control", "scored"): 40, ("treatment", "scored"): 40}


def copied(scene: Scene, number: int, user: str, copy: str) -> list[Exchange]:
    """A user's request and its shadow."""
    users = scene.content(exchange(number, experiment="e", arm="control"), "What is it?", {0: user})
    pair = Pair(arm="control", of=users.id)
    other = exchange(number, id=f"req_c{number:05d}", experiment="e", arm="new", epoch=1, unit=f"u{number}", pair=pair)
    return [users, scene.content(other, "What is it?", {0: copy})]


async def test_a_shadow_is_judged_in_both_orders(scene: Scene) -> None:
    await scene.bed.begin(BOTH | {"strategy": "shadow", "shadow": {"share": 1.0, "judge": "judges"}})
    records = [one for n in range(12) for one in copied(scene, n, "short", "much longer" if n % 4 else "brief")]
    await scene.bed.send([*records, *copied(scene, 20, "same", "same")[:], *copied(scene, 21, "a", "b")[1:]])
    await scene.worker(compare={"pool": "judges"}).step()
    assert await scene.counts() == {
        ("new", "won"): 9,
        ("new", "same"): 3,
        ("new", "identical"): 1,
        ("new", "no_content"): 1,  # the user's own answer is not there
    }
    statistics = await scene.statistics()
    assert statistics.moments[1, "new", "judged"].top == statistics.moments[1, "new", "judged"].bottom == 9
    assert len(scene.judge.asked) == 24


async def test_a_judge_that_prefers_a_place_gives_ties_and_is_told_of(scene: Scene) -> None:
    await scene.bed.begin(BOTH | {"strategy": "shadow", "shadow": {"share": 1.0, "judge": "judges"}})
    await scene.bed.send([one for n in range(10) for one in copied(scene, n, "short", "much longer")])
    scene.judge.says = biased
    await scene.declare("Evaluator", "v", {"compare": {"pool": "judges"}})
    await scene.worker(compare={"pool": "judges"}).step()
    statistics = await scene.statistics()
    assert (1, "new", "judged") not in statistics.moments
    assert statistics.moments[1, "new", "judged="].top == 10
    assert await scene.counts() == {("new", "contradicted"): 10}


async def test_interleaved_answers_are_judged_whoever_stood_first(scene: Scene) -> None:
    spec = {"strategy": "interleaved", "interleaved": {"share": 1.0, "evaluator": "v"}}
    await scene.declare("Evaluator", "v", {"compare": {"pool": "judges"}})
    await scene.bed.begin(BOTH | spec)
    records = []
    for n in range(10):
        order = ("control", "new") if n % 2 else ("new", "control")
        one = exchange(n, experiment="e", arm="control", epoch=1, unit=f"u{n}", pair=Pair(arm="new", shown=order))
        texts = {place: "the longer one" if arm == "new" else "short" for place, arm in enumerate(order)}
        records.append(scene.content(one, "What is it?", texts))
    drafted = exchange(
        11, experiment="e", arm="control", epoch=1, unit="u11", pair=Pair(arm="new", shown=("new", "control", "new"))
    )
    await scene.bed.send([*records, scene.content(drafted, "What is it?", {0: "a list of both"})])
    await scene.worker("w", compare={"pool": "judges"}).step()
    assert (1, "new", "judged") not in (await scene.statistics()).moments  # the experiment hears another one
    await scene.worker("v", compare={"pool": "judges"}).step()
    statistics = await scene.statistics()
    assert (statistics.moments[1, "new", "judged"].top, statistics.moments[1, "new", "judged"].bottom) == (10, 10)
    scene.bed.now += 5
    await scene.bed.evaluator.round()
    told = (await scene.bed.call("GET", "/experiments/e")).json()
    assert [(one["won"], one["lost"]) for one in told["verdict"]["votes"] if one["metric"] == "judged"] == [(10, 0)]


async def test_two_arms_answers_to_one_question_are_compared_once_each(scene: Scene) -> None:
    await scene.bed.begin(AB)
    longer, short = "a much longer answer", "brief"
    first = [scene.said(n, "control", f"What about {n}?", short) for n in range(40)]
    later = [scene.said(100 + n, "treatment", f"what about {n}", longer) for n in range(40)]
    lonely = scene.said(300, "treatment", "Nobody else asks this.", longer)
    worker = scene.worker(compare={"pool": "judges"})
    await scene.bed.send(first)
    await worker.step()
    assert await scene.counts() == {("control", "unpaired"): 40}
    await scene.bed.send([*later, lonely])
    await scene.worker(compare={"pool": "judges"}).step()  # another process knows what waits
    control, treatment = await scene.mean("control", "win_rate"), await scene.mean("treatment", "win_rate")
    assert control[0] + treatment[0] == 40 and min(control[0], treatment[0]) > 8
    assert (control[1], treatment[1]) == (0, 1_000_000)
    counts = await scene.counts()
    assert counts["treatment", "unpaired"] == 1
    assert counts["control", "lost"] + counts["treatment", "won"] == 40
    rows = await scene.bed.table(tables.evaluator_waiting)
    assert [row["request"] for row in rows] == ["req_000300"]
    assert not any("What" in str(row) for row in rows)


async def test_relevance_is_the_cosine_of_question_and_answer(scene: Scene) -> None:
    await scene.bed.begin(AB)
    await scene.bed.send(
        [scene.said(1, "control", "ab", "aabb"), scene.said(2, "treatment", "ab", "cd"), scene.said(3, "control", "xyz", "ab")]
    )  # fmt: skip
    await scene.worker(relevance={"pool": "judges"}).step()
    assert await scene.mean("control", "relevance") == (1, 1_000_000)
    assert await scene.mean("treatment", "relevance") == (1, 0)
    assert (await scene.counts())["control", "unreadable"] == 1  # a vector of nothing but 0 is near to nothing


async def test_rules_and_words_are_metrics_that_an_experiment_declares(scene: Scene) -> None:
    await scene.declare("Evaluator", "brief", {"rules": {"max_words": 3}})
    declared = {"metrics": [{"name": "brevity", "evaluator": "brief", "type": "proportion", "family": "quality"}]}
    await scene.bed.begin(AB | declared)
    await scene.bed.send(
        [scene.said(n, ("control", "treatment")[n % 2], "q", "damn you idiot" if n % 2 else "one two three four") for n in range(10)]
    )  # fmt: skip
    await scene.worker("brief", rules={"max_words": 3}).step()
    await scene.worker("other", rules={"max_words": 1}).step()  # tells `rules` too, but is not what was declared
    await scene.worker("tone", toxic={}).step()
    assert await scene.mean("control", "brevity") == (5, 0)
    assert await scene.mean("treatment", "brevity") == (5, 1)
    assert (await scene.mean("treatment", "toxicity"))[1] == 700_000
    scene.bed.now += 5
    await scene.bed.evaluator.round()
    told = (await scene.bed.call("GET", "/experiments/e")).json()
    named = {one["metric"]: one for one in told["verdict"]["comparisons"]}
    assert (named["brevity"]["value"], named["brevity"]["control_value"]) == (1.0, 0.0)
    with pytest.raises(Conflict, match="measures by the evaluator brief"):
        await scene.declare("Evaluator", "brief", {"rules": {"max_words": 4}})
    await scene.declare("Evaluator", "brief", {"rules": {"max_words": 3}})


async def test_failures_are_tried_again_and_then_counted(scene: Scene) -> None:
    await scene.bed.begin(AB)
    await scene.bed.send([scene.said(n, "control", "q", "x" * n) for n in range(1, 5)])
    scene.judge.says = lambda _messages: "5"
    scene.judge.statuses = [500, 502]
    worker = scene.worker(judge={"pool": "judges", "rubric": "Kind?"}, in_flight=1, attempts=3)
    await worker.step()
    assert await scene.counts() == {("control", "scored"): 4}
    assert worker.asker is not None and worker.asker.calls == {"failed": 2, "ok": 4}

    await scene.bed.send([scene.said(n, "control", "q", "x" * n) for n in (11, 12, 13)])
    scene.judge.status = 400
    await worker.step()
    scene.judge.status, scene.judge.says = 200, lambda _messages: "I would rather not say."
    await scene.bed.send([scene.said(14, "control", "q", "x")])
    await worker.step()
    scene.judge.hangs = True
    await scene.bed.send([scene.said(15, "control", "q", "x")])
    hurried = scene.worker(judge={"pool": "judges", "rubric": "Kind?"}, timeout_s=0.1, attempts=2)
    await hurried.step()
    assert await scene.counts() == {("control", "scored"): 4, ("control", "failed"): 4, ("control", "unreadable"): 1}
    assert hurried.asker is not None and hurried.asker.calls["timeout"] == 2


async def test_who_cannot_be_asked_for_now_is_waited_for(scene: Scene) -> None:
    await scene.bed.begin(AB)
    await scene.bed.send([scene.said(n, "control", "q", "x" * n) for n in range(1, 4)])
    scene.judge.says = lambda _messages: "5"
    for status, retry_after in ((401, b""), (404, b""), (503, b"1"), (429, b"3600")):
        scene.judge.statuses, scene.judge.retry_after = [200, status], retry_after
        worker = scene.worker(f"v{status}", judge={"pool": "judges", "rubric": "Kind?"}, in_flight=1)
        with pytest.raises(Held) as held:
            await worker.step()
        assert ("Over budget" in held.value.why) is (status == 429)
        assert not [row for row in await scene.bed.table(tables.evaluator_counts) if row["evaluator"] == worker.name]
        asked = len(scene.judge.asked)
        await worker.step()
        assert len(scene.judge.asked) == asked + 2  # the first was scored, and is remembered
        found = [row for row in await scene.bed.table(tables.evaluator_counts) if row["evaluator"] == worker.name]
        assert [(row["result"], row["count"]) for row in found] == [("scored", 3)]
        read = [
            row for row in await scene.bed.table(schema.audit_events) if row["subject"] == f"evaluator {worker.name}"
        ]
        assert len(read) == 1, "a page that is begun again and again fills no trail"


async def test_a_short_wait_for_the_budget_is_no_failure(scene: Scene) -> None:
    await scene.bed.begin(AB)
    await scene.bed.send([scene.said(1, "control", "q", "x")])
    scene.judge.says = lambda _messages: "5"
    scene.judge.statuses, scene.judge.retry_after = [429, 429], b"0.1"
    worker = scene.worker(judge={"pool": "judges", "rubric": "Kind?"}, attempts=1)
    await worker.step()
    assert worker.asker is not None and worker.asker.calls == {"limited": 2, "ok": 1}


async def test_what_is_too_old_is_counted_and_asked_nobody(scene: Scene) -> None:
    await scene.bed.begin(AB)
    worker = scene.worker(judge={"pool": "judges", "rubric": "Kind?"}, look_back_s=600)
    await worker.step()
    await scene.bed.send([scene.said(n, "control", "q", "x") for n in range(3)])
    scene.bed.now += 3600
    await worker.step()
    assert await scene.counts() == {("control", "too_late"): 3}
    assert scene.judge.asked == []


async def test_what_was_forgotten_is_scored_no_more(scene: Scene) -> None:
    await scene.bed.begin(AB)
    await scene.bed.send([scene.said(n, "control", "q", "x") for n in range(3)])
    scene.keys.forget("a", "user/u1", scene.bed.now)
    await scene.worker(toxic={}).step()
    assert await scene.counts() == {("control", "scored"): 2, ("control", "no_content"): 1}


async def test_calls_are_booked_for_evaluators_and_for_nobody_else(scene: Scene) -> None:
    await scene.bed.begin(AB)
    await scene.declare("Evaluator", "v", {"judge": {"pool": "judges", "rubric": "Kind?"}})
    call = exchange(7, tenant="(evaluators)", user="", route="(evaluators)/v", model="(evaluators)/v", cost_nanousd=500)
    refused = msgspec.structs.replace(call, id="req_000008", outcome="refused", status=429, cost_nanousd=0)
    await scene.bed.send([scene.said(1, "control", "q", "x"), call, refused])
    await scene.worker(judge={"pool": "judges", "rubric": "Kind?"}, of="all").step()
    assert len(scene.judge.asked) == 1  # no evaluator looks at another one's calls
    assert {row["tenant"] for row in await scene.bed.table(visits)} == {"a"}
    usage = {row["tenant"]: row["cost_nanousd"] for row in await scene.bed.table(ingested.usage_minute)}
    assert usage["(evaluators)"] == 500
    async with scene.bed.control.database.read() as connection:
        used = (await used_by(connection, ("v", "w")))["v"]
    assert (used["calls"], used["refused"], used["errors"], used["cost_usd"]) == (2, 1, 0, 500e-9)
    assert (used["prompt_tokens"], used["completion_tokens"]) == (2 * call.usage.prompt, 2 * call.usage.completion)
    overview = (await scene.bed.call("GET", "/overview", window_s=864000)).json()
    assert (overview["requests"], overview["refused"]) == (1, 0)
    assert overview["cost_usd"] >= 500e-9


async def test_clients_cannot_say_what_a_judge_would(scene: Scene) -> None:
    await scene.bed.begin(BOTH | {"strategy": "shadow", "shadow": {"share": 1.0, "judge": "judges"}})
    await scene.bed.send([one for n in range(3) for one in copied(scene, n, "short", "much longer")])
    forged = Observation(
        id="mine", at=T0, received=T0, kind="event", tenant="a", request="req_c00000", name="judged", value=1.0
    )
    await scene.bed.send([forged])
    assert (1, "new", "judged") not in (await scene.statistics()).moments


async def test_an_evaluator_is_checked_against_what_is_there(scene: Scene) -> None:
    for spec, path in (
        ({"references": "nothing"}, "spec.references"),
        ({"judge": {"pool": "nobody", "rubric": "x"}}, "spec.judge.pool"),
        ({"judge": {"pool": "old", "rubric": "x"}}, "spec.judge.pool"),  # it does not say what the model is called
        ({"rules": {"pattern": "("}}, "spec.rules.pattern"),
        ({"rules": {}}, "spec.rules"),
        ({}, "spec"),
        ({"toxic": {}, "rules": {"refuses": False}}, "spec"),
        ({"compare": {"pool": "judges"}, "of": "all"}, "spec"),
        ({"judge": {"pool": "judges", "rubric": "x", "low": 5, "high": 5}}, "spec.judge"),
        ({"toxic": {}, "tells": "conversion"}, "spec"),
    ):
        with pytest.raises(BadRequest) as refused:
            await scene.declare("Evaluator", "v", spec)
        assert refused.value.param == path, spec
    with pytest.raises(BadRequest, match=r"items\.1\.question"):
        await scene.declare("References", "r", {"items": [*KNOWN["items"], {"question": "how long may i return it", "answers": ["x"]}]})  # fmt: skip
    with pytest.raises(BadRequest, match="no evaluator 'ghost'"):
        await scene.bed.begin(AB | {"metrics": [{"name": "m", "evaluator": "ghost", "type": "mean"}]}, "ghostly")


async def test_evaluators_follow_what_is_declared(scene: Scene) -> None:
    await scene.bed.begin(AB)
    await scene.declare("References", "known", KNOWN)
    await scene.declare("Evaluator", "facts", {"references": "known"})
    evaluators = Evaluators(scene.bed.control, scene.keys, scene.bed.signal, scene.gateway, poll_s=0.05)
    running = asyncio.create_task(evaluators.run())
    try:
        await scene.bed.send([scene.said(1, "control", "How long may I return it?", "30 days")])

        async def scored(count: int) -> None:
            async with asyncio.timeout(20):
                while (await scene.counts()).get(("control", "scored"), 0) < count:
                    await asyncio.sleep(0.05)

        await scored(1)
        first = evaluators.workers["facts"]
        await scene.declare("References", "known", {"items": [{"question": "Who?", "answers": ["me"]}]})
        await eventually(lambda: evaluators.workers.get("facts") not in (None, first))
        await scene.bed.send([scene.said(2, "control", "Who?", "me")])
        await scored(2)
        second = evaluators.workers["facts"]
        evaluators._running["facts"][2].cancel()  # stands for a fault that nobody has thought of
        await eventually(lambda: evaluators.workers.get("facts") not in (None, second))
        await scene.bed.send([scene.said(3, "control", "Who?", "me")])
        await scored(3)
        assert evaluators.failures == 1
        async with scene.bed.control.change(SYSTEM) as change:
            await EVALUATOR.delete(change, "facts")
        await eventually(lambda: not evaluators.workers)
        assert await scene.counts() == {}
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_gateways_are_told_of_a_route_that_is_the_evaluators_alone(small_house: House) -> None:
    house = small_house
    await house.post("/pools", {"name": "judges", "spec": JUDGES_POOL})
    spec = {"judge": {"pool": "judges", "rubric": "Kind?"}, "budget": {"calls_per_minute": 7, "usd_per_day": 0.5}}
    document = f"kind: Evaluator\nname: kind\nspec: {spec}\n---\nkind: References\nname: r\nspec: {KNOWN}\n"
    applied = await house.admin.post("/api/v1/apply", content=document)
    assert applied.status_code == 200, applied.text
    assert {(one["kind"], one["action"]) for one in applied.json()["steps"]} == {
        ("Evaluator", "create"),
        ("References", "create"),
    }
    snapshot = await house.publisher.refresh()
    (route,) = [one for one in snapshot.routes if one.tenant]
    assert (route.name, route.tenant, route.policy, route.to[0].pool) == (
        "(evaluators)/kind",
        "(evaluators)",
        "(evaluators)",
        "judges",
    )
    (key,) = [one for one in snapshot.keys if one.tenant == "(evaluators)"]
    assert (key.models, key.limits.requests_per_minute, key.limits.usd_per_day) == (("(evaluators)/kind",), 7, 0.5)
    (tenant,) = [one for one in snapshot.tenants if one.name == "(evaluators)"]
    assert (tenant.priority, tenant.policy) == ("batch", "(evaluators)")
    (policy,) = [one for one in snapshot.policies if one.name == "(evaluators)"]
    assert (policy.capture, policy.rules) == ("none", ())
    refused = await house.admin.delete("/api/v1/pools/judges")
    assert refused.status_code == 409 and "the evaluator kind" in refused.text
    assert (await house.admin.delete("/api/v1/evaluators/kind")).status_code == 204
    snapshot = await house.publisher.refresh()
    assert not [one for one in (*snapshot.tenants, *snapshot.keys, *snapshot.routes) if "(evaluators)" in repr(one)]
    async with house.control.database.read() as connection:
        assert (
            await connection.execute(select(schema.keys.c.id).where(schema.keys.c.tenant == "(evaluators)"))
        ).first() is None


async def test_who_belongs_to_a_tenant_has_no_answers_read(small_house: House) -> None:
    house = small_house
    for name in ("acme", "other"):
        await house.post("/tenants", {"name": name, "spec": {}})
    made = await house.post("/keys", {"name": "ann", "tenant": "acme", "roles": ["admin"]})
    async with house.client(made["key"]) as ann:

        async def tried(path: str, body: dict[str, Any]) -> int:
            return (await ann.post(f"/api/v1{path}", json=body)).status_code

        for tenants, status in (([], 403), (["other"], 403), (["acme", "other"], 403), (["acme"], 403)):
            spec = {"toxic": {}, "tenants": tenants}
            assert await tried("/evaluators", {"name": "v", "spec": spec}) == status, tenants
        # Nor is there a way round by a key of somebody else's.
        assert await tried("/keys", {"name": "k", "roles": ["admin"]}) == 403
        assert await tried("/keys", {"name": "k", "tenant": "other", "roles": ["auditor"]}) == 403
        assert await tried("/keys", {"name": "k", "tenant": "acme"}) == 201
        [admin] = [one for one in await house.get("/keys") if one["tenant"] is None]
        assert await tried(f"/keys/{admin['id']}/revoke", {}) == 403
        changed = await ann.put(f"/api/v1/keys/{admin['id']}", json={"roles": ["admin"]})
        assert changed.status_code == 403


@pytest.mark.parametrize("value", ["1" + "0" * 400, "null", "{}"])
@pytest.mark.parametrize("status", [200, 400])
async def test_an_engine_that_answers_with_anything_at_all_stops_nobody(value: str, status: int) -> None:
    bodies = [f'{{"data": [{{"index": 0, "embedding": [{value}]}}]}}', "[" * 100_000]
    for body in bodies:
        transport = httpx.MockTransport(lambda _request, body=body: httpx.Response(status, content=body.encode()))
        async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
            asker = Asker(client, model="m", key="k", timeout_s=5, attempts=1)
            with pytest.raises(NotAnswered):
                await asker.vectors(["x"])
