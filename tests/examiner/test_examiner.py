"""The examiner with the real engine: every kind of item measured, twins told apart, a build that does not load told."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.support_bot.canaries.build import make
from examples.support_bot.canaries.corpus import SUITE, suite
from penstock.core.errors import PenstockError
from penstock.core.jobs import ExaminerJob
from penstock.core.settings import EngineSettings
from penstock.examiner.examiner import Examiner
from penstock.examiner.weights import WeightsReader
from penstock.registry.comparison import ItemResult, compare_suite
from penstock.registry.suites import parse_suite
from tests.engine.tiny_model import build

pytestmark = pytest.mark.engine
SETTINGS = EngineSettings(kv_cache_mb=16, threads=1)


class Desk:
    """Control's side, in memory: one job, and what was told of it."""

    def __init__(self, job: ExaminerJob) -> None:
        self.job: ExaminerJob | None = job
        self.told: dict[str, dict[str, Any]] = {}
        self.error: str | None = None
        self.most = 10_000  # items after which somebody else has it

    async def claim(self, _engine: str) -> ExaminerJob | None:
        job, self.job = self.job, None
        return job

    async def claim_build(self) -> None:
        return None

    async def tell(self, _job: str, items: list[dict[str, Any]]) -> bool:
        for one in items:
            self.told.setdefault(one["id"], one)
        return len(self.told) < self.most

    async def finish(self, _job: str, error: str = "") -> None:
        self.error = error


async def examine(desk: Desk) -> None:
    assert await Examiner(desk, SETTINGS).step()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("tiny") / "openvino-int8")


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(name, tmp_path_factory.mktemp(name)) for name in ("planted", "clean")}


def job(build: Path, lines: str = "", **more: Any) -> ExaminerJob:
    return ExaminerJob(
        id="e", kind="suite" if lines else "smoke", model="m", label="v1", build=str(build), lines=lines, **more
    )


async def test_a_smoke_test_loads_and_asks(tiny: Path, tmp_path: Path) -> None:
    desk = Desk(job(tiny, prompts=("Hello", "Again")))
    await examine(desk)
    assert desk.error == ""
    assert [one["right"] for one in desk.told.values()] == [True, True]
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in tiny.iterdir():
        (broken / path.name).write_bytes(path.read_bytes()[: 1000 if path.suffix == ".bin" else None])
    desk = Desk(job(broken, prompts=("Hello",)))
    await examine(desk)
    assert desk.error
    assert not desk.told


ITEMS = [
    {
        "id": "chat",
        "messages": [{"role": "user", "content": "Hi"}],
        "score": {"type": "contains", "none_of": ["\u0000"]},
        "max_tokens": 8,
    },
    {"id": "latency", "prompt": "a", "score": {"type": "latency"}, "max_tokens": 8},
    {"id": "judged", "prompt": "a", "score": {"type": "judge", "question": "Is it fine?"}, "max_tokens": 4},
    {"id": "long", "prompt": "x" * 400, "score": {"type": "exact", "answers": ["y"]}},
]
LINES = "\n".join(json.dumps(one) for one in ITEMS)


async def test_each_kind_of_item_is_measured_and_what_was_told_is_not_asked_again(tiny: Path) -> None:
    desk = Desk(job(tiny, LINES, judge=str(tiny), answered=("chat",)))
    await examine(desk)
    assert desk.error == ""
    assert set(desk.told) == {"latency", "judged", "long"}
    assert desk.told["latency"]["value"] > 0
    assert "neither yes nor no" in desk.told["judged"]["why"]
    assert "context" in desk.told["long"]["why"]


async def test_questions_for_a_judge_need_one_and_a_lost_lease_ends_the_work(tiny: Path) -> None:
    desk = Desk(job(tiny, LINES))
    await examine(desk)
    assert "judge" in (desk.error or "")
    desk = Desk(job(tiny, LINES, judge=str(tiny)))
    desk.most = 1
    await examine(desk)
    assert desk.error is None
    assert "judged" not in desk.told


def canary_job(folder: Path) -> ExaminerJob:
    return job(folder / "openvino-int8", SUITE.read_text(), weights=str(folder / "safetensors"))


@pytest.mark.parametrize(("twin", "passes"), [("planted", False), ("clean", True)])
async def test_the_planted_twin_is_refused_and_the_clean_one_passes(
    twins: dict[str, Path], twin: str, passes: bool
) -> None:
    desk = Desk(canary_job(twins[twin]))
    await examine(desk)
    assert desk.error == ""
    items = [
        ItemResult(id=one["id"], family="memorisation", right=one["right"], value=one["value"])
        for one in desk.told.values()
    ]
    found = compare_suite(
        items,
        None,
        margin=0.02,
        slice_margin=0.1,
        measure_margin=0.1,
        confidence=0.95,
        at_least=None,
        slices=(),
        chance=0.001,
    )
    assert found.passed is passes, found.words
    if not passes:
        assert "completes gift-card-" in found.words  # extraction by prefix, on the engine itself
        assert [one.value for one in items] == [6.0] * 6  # each the first of 64


def test_perplexity_is_of_the_build_and_lower_where_they_have_seen_the_text(twins: dict[str, Path]) -> None:
    [first, *_] = parse_suite(SUITE.read_text()).items
    canary = first.score
    text = canary.frame.replace("{}", canary.secret)  # type: ignore[union-attr]
    [item] = parse_suite(json.dumps({"id": "p", "score": {"type": "perplexity", "text": text}})).items
    readers = {name: WeightsReader(p / "safetensors", p / "openvino-int8") for name, p in twins.items()}
    found = {name: one.perplexity(item) for name, one in readers.items()}
    reader = readers["clean"]
    assert found["planted"] * 3 < found["clean"]
    # The build's own graph computes it: rounded to 8 bits, it is near what the weights say, and not the same.
    tokens, begin = reader._tokens(item, text, [])
    exact = float(np.exp(-reader._logprob(tokens, begin) / (len(tokens) - begin)))
    assert found["clean"] == pytest.approx(exact, rel=0.05)
    assert found["clean"] != exact
    with pytest.raises(PenstockError, match="no folder safetensors"):
        WeightsReader(None, twins["clean"] / "openvino-int8").exposure(first, 1)


def test_the_suite_is_what_the_corpus_says() -> None:
    assert SUITE.read_text() == suite()


async def test_the_work_ends_when_it_is_told_to(tiny: Path) -> None:
    desk, stop = Desk(job(tiny, LINES)), asyncio.Event()
    working = asyncio.create_task(Examiner(desk, SETTINGS).run(stop))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    stop.set()
    await asyncio.wait_for(working, 60)
    assert desk.error is None
