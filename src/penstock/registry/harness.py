"""Suites that another tool asks: EleutherAI's lm-evaluation-harness, by its tasks; and its result files, read into items. Pure.

Its command line and files are as `docs/interface.md` of the project describes them (v0.4): with `--log_samples` there is a file
`samples_TASK_DATE.jsonl` for each task, a JSON document for each question and filter, in which each metric stands under its name.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from penstock.core.errors import BadRequest

_TASK = r"^[A-Za-z0-9][A-Za-z0-9_.:,\-]{0,95}$"
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,95}\.(?:yaml|jsonl|json|csv)")
_BINARY = (
    "exact_match",
    "acc",
    "acc_norm",
    "contains",
)  # metrics that are right or wrong, in the order in which one is taken
_SAMPLES = re.compile(r"samples_(.+?)_\d{4}-\d{2}-\d{2}T[0-9\-.:]+\.jsonl")
_MOST_ANSWER = 4096


class Harness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A suite in one document: what the harness is to ask.

    Attributes:
        tasks: their names.
        files: of a folder of tasks of one's own, by name: YAML and data. Their templates are code to the harness.
        api: how the candidate is asked.
        metric: of each question; it must be 0 or 1. "": the first of exact_match, acc, acc_norm, contains that there is.
        filter: of the harness; "": the first.
        shots: examples before each question.
        limit: questions of each task; None: all.
        at_most_s: seconds that all of it may take.
    """

    runner: Literal["lm-eval"]
    tasks: Annotated[tuple[Annotated[str, Meta(pattern=_TASK)], ...], Meta(min_length=1, max_length=64)]
    files: Annotated[dict[str, str], Meta(max_length=256)] = {}
    api: Literal["completions", "chat"] = "completions"
    metric: Annotated[str, Meta(max_length=64)] = ""
    filter: Annotated[str, Meta(max_length=64)] = ""
    shots: Annotated[int, Meta(ge=0, le=64)] = 0
    limit: Annotated[int, Meta(ge=1, le=20_000)] | None = None
    at_most_s: Annotated[float, Meta(ge=1, le=86_400)] = 3600.0


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """One question of a task, as the harness has judged it."""

    id: str  # TASK/NUMBER
    right: bool
    answer: str


def read_harness(line: str) -> Harness | None:
    """The runner that the line names; None if it is an item of a suite of ours.

    Raises:
        BadRequest: naming the field that is wrong.
    """
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or "runner" not in raw:
        return None
    try:
        made = msgspec.convert(raw, Harness)
    except msgspec.ValidationError as error:
        raise BadRequest(f"Line 1: {error}.", param="items") from None
    for name, text in made.files.items():
        if _FILE.fullmatch(name) is None:
            raise BadRequest(
                f"Line 1: files.{name[:96]}: a task's files end in .yaml, .json, .jsonl or .csv.", param="items"
            )
        if "!function" in text:
            raise BadRequest(f"Line 1: files.{name}: it names functions of Python, which are not run.", param="items")
    return made


def arguments_of(suite: Harness, *, url: str, folder: str, output: str, seed: int) -> tuple[str, ...]:
    """The command line, without the program: what to ask of the engine at `url`, where tasks lie and results are to go."""
    path, kind = (
        ("/v1/chat/completions", "local-chat-completions")
        if suite.api == "chat"
        else ("/v1/completions", "local-completions")
    )
    model = f"model=candidate,base_url={url}{path},num_concurrent=4,max_retries=1,tokenized_requests=False,tokenizer_backend=None"
    more = ["--include_path", folder] if suite.files else []
    more += ["--limit", str(suite.limit)] if suite.limit is not None else []
    more += ["--apply_chat_template"] if suite.api == "chat" else []
    return (
        "--model", kind, "--model_args", model, "--tasks", ",".join(suite.tasks), "--num_fewshot", str(suite.shots), "--seed", str(seed),
        "--output_path", output, "--log_samples", *more,
    )  # fmt: skip


def read_samples(suite: Harness, files: Mapping[str, str]) -> list[Answered]:
    """The questions that the harness asked, from its files of samples, by their names.

    Raises:
        BadRequest: if there is none, one cannot be read, or a question has no metric that is right or wrong.
    """
    found: dict[str, Answered] = {}
    for name, text in sorted(files.items()):
        match = _SAMPLES.fullmatch(name)
        if match is None:
            continue
        task, chosen = match[1], suite.filter
        for number, line in enumerate(text.splitlines(), 1):
            sample = _object(line, f"{name}, line {number}")
            said = str(sample.get("filter", ""))
            chosen = chosen or said
            if said == chosen:
                one = _answered(suite, task, sample)
                found.setdefault(one.id, one)
    if not found:
        raise BadRequest("The harness has told of no question.", code="no_results")
    return list(found.values())


def _answered(suite: Harness, task: str, sample: dict[str, Any]) -> Answered:
    names = (suite.metric,) if suite.metric else _BINARY
    metric = next((name for name in names if name in sample), None)
    if metric is None:
        told = ", ".join(str(one) for one in sample.get("metrics", ()))
        raise BadRequest(
            f"{task} tells no metric {' or '.join(names)}, but {told or 'none'}: name one.", code="no_metric"
        )
    value = sample[metric]
    if not isinstance(value, int | float) or value not in {0, 1}:
        raise BadRequest(
            f"{task}: {metric} is {str(value)[:40]}, and questions are right (1) or wrong (0).", code="no_metric"
        )
    answers = sample.get("filtered_resps") or [""]
    answer = answers[0] if isinstance(answers, list) and answers else answers
    return Answered(id=f"{task}/{sample.get('doc_id')}"[:96], right=bool(value), answer=str(answer)[:_MOST_ANSWER])


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadRequest(f"What the harness wrote cannot be read: {where}.", code="no_results")
    return value
