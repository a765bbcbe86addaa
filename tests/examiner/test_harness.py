"""lm-evaluation-harness as a runner: a process that asks the real engine over HTTP and leaves its files, read into items.

The program is a stand-in that speaks the harness's command line, asks the engine, and writes result files of its form; with
PENSTOCK_TEST_LM_EVAL the installed one is run.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from penstock.core.errors import Damaged, PenstockError, Unavailable
from penstock.examiner.examiner import Examiner
from penstock.examiner.harness import HarnessRunner
from penstock.registry.harness import Harness
from penstock.registry.suites import parse_suite
from tests.engine.tiny_model import build
from tests.examiner.test_examiner import SETTINGS, Desk, job

pytestmark = pytest.mark.engine

TASK = {
    "letters.yaml": """task: letters
dataset_path: json
dataset_kwargs: {data_files: {test: tasks/letters.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["#"], max_gen_toks: 8, do_sample: false, temperature: 0}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
""",
    "letters.jsonl": "\n".join(json.dumps({"question": f"the order {n}", "answer": "yes"}) for n in range(6)),
}
PROGRAM = """#!{python}
import json, os, pathlib, sys, time, urllib.request

words = [word for word in sys.argv[1:] if word != "--log_samples"]
told = dict(zip(words[::2], words[1::2]))
model = dict(part.split("=", 1) for part in told["--model_args"].split(","))
tasks = pathlib.Path(told["--include_path"])
lines = (tasks / "letters.jsonl").read_text().splitlines()[: int(told.get("--limit", 100))]
assert not [name for name in os.environ if name.startswith("PENSTOCK")], "settings are not told"
how = (tasks / "how.json").read_text() if (tasks / "how.json").exists() else "{{}}"
how = json.loads(how)
if how.get("sleep"):
    time.sleep(600)
out = pathlib.Path(told["--output_path"]) / "candidate"
out.mkdir(parents=True)
with open(out / "samples_letters_2026-11-23T09-30-00.1.jsonl", "w") as file:
    for number, line in enumerate(lines):
        doc = json.loads(line)
        body = {{"model": model["model"], "prompt": doc["question"], "max_tokens": 8, "temperature": 0, "seed": int(told["--seed"]), "stop": ["#"]}}
        request = urllib.request.Request(model["base_url"], json.dumps(body).encode(), {{"content-type": "application/json"}})
        text = json.load(urllib.request.urlopen(request))["choices"][0]["text"]
        right = float(number % 3 == 0)
        file.write(json.dumps({{"doc_id": number, "doc": doc, "resps": [[text]], "filtered_resps": [text], "filter": "none", "metrics": ["exact_match"], "exact_match": right}}) + chr(10))
print("done", flush=True)
sys.exit(how.get("status", 0))
"""


def suite(**more: object) -> str:
    files = {**TASK, **more.pop("files", {})}  # type: ignore[dict-item]
    return json.dumps({"runner": "lm-eval", "tasks": ["letters"], "files": files, **more})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("tiny") / "openvino-int8")


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "lm_eval"
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(0o755)
    return str(path)


def examined(tiny: Path, lines: str, runner: HarnessRunner | None) -> Desk:
    desk = Desk(job(tiny, lines))
    asyncio.run(Examiner(desk, SETTINGS, runner).step())  # type: ignore[arg-type]
    return desk


def test_its_questions_become_items(tiny: Path, program: str, tmp_path: Path) -> None:
    desk = examined(tiny, suite(limit=5), HarnessRunner(program, tmp_path))
    assert desk.error == ""
    assert [one["id"] for one in desk.told.values()] == [f"letters/{n}" for n in range(5)]
    assert [one["right"] for one in desk.told.values()] == [True, False, False, True, False]
    assert all(one["answer"] for one in desk.told.values()), "the engine has answered"


def test_one_that_fails_or_hangs_or_is_not_there_is_told(tiny: Path, program: str, tmp_path: Path) -> None:
    desk = examined(tiny, suite(files={"how.json": '{"status": 3}'}), HarnessRunner(program, tmp_path))
    assert desk.error is not None
    assert "failed (status 3): done" in desk.error
    assert not desk.told
    desk = examined(tiny, suite(files={"how.json": '{"sleep": true}'}, at_most_s=1), HarnessRunner(program, tmp_path))
    assert desk.error == "lm-evaluation-harness took longer than 1 s."
    desk = examined(tiny, suite(), HarnessRunner("/no/such/lm_eval", tmp_path))
    assert desk.error is not None
    assert "There is no program '/no/such/lm_eval'" in desk.error
    assert examined(tiny, suite(), None).error == "This examiner has no lm-evaluation-harness."


async def test_what_it_leaves_is_not_believed(program: str, tmp_path: Path) -> None:
    liar = tmp_path / "liar"
    liar.write_text(f"#!{sys.executable}\nprint('nothing written')\n")
    liar.chmod(0o755)
    made = parse_suite(suite()).harness
    assert isinstance(made, Harness)
    with pytest.raises(PenstockError, match="told of no question"):
        await HarnessRunner(str(liar), tmp_path).ask(made, "http://127.0.0.1:9", 1)
    with pytest.raises(Damaged, match="status 1"):  # nobody answers there
        await HarnessRunner(program, tmp_path).ask(made, "http://127.0.0.1:9", 1)
    with pytest.raises(Unavailable):
        await HarnessRunner("no-such-program-anywhere", tmp_path).ask(made, "http://127.0.0.1:9", 1)


@pytest.mark.skipif("PENSTOCK_TEST_LM_EVAL" not in os.environ, reason="the harness itself is not installed")
def test_the_harness_itself(tiny: Path, tmp_path: Path) -> None:
    desk = examined(tiny, suite(), HarnessRunner(os.environ["PENSTOCK_TEST_LM_EVAL"], tmp_path))
    assert desk.error == ""
    assert len(desk.told) == 6
