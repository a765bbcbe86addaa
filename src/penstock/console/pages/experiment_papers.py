"""What is taken away of an experiment, and what is read of it: exports, a report to print, and answers of its arms side by side."""

import asyncio
from typing import Any

import msgspec
from starlette.responses import Response

from penstock.console.client import at
from penstock.console.pages.experiments import described, read_page
from penstock.console.shapes_content import Content
from penstock.console.shapes_experiments import WholeExperiment
from penstock.console.visit import Visit
from penstock.console.word_diff import Span, apart
from penstock.core.errors import BadRequest, PenstockError

PAIRS = 5
TABLES = ("comparisons", "points", "arms", "guardrails", "epochs")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Where an arm's answer can be read."""

    arm: str
    request: str
    choice: int = 0


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One request that two arms answered, or one of an arm."""

    at: float
    answers: tuple[Answer, ...]
    similarity: float | None = None
    judged: str | None = None


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first."""

    samples: tuple[Sample, ...] = ()


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it is shown."""

    arm: str
    request: str
    spans: tuple[Span, ...] = ()
    why: str = ""  # there is nothing to show


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, and the answers."""

    at: float
    asked: str
    answers: tuple[Told, ...]
    similarity: float | None = None
    judged: str | None = None


async def answers(visit: Visit) -> Response:
    """The newest answers of the arms side by side; what two say apart is marked. Each text that is read leaves an audit event."""
    visit.must("content:read")
    name = visit.path("name")
    experiment, found = await asyncio.gather(
        visit.api.get(at("experiments", name), WholeExperiment),
        visit.api.get(at("experiments", name, "samples"), Samples, limit=PAIRS),
    )
    requests = sorted({answer.request for one in found.samples for answer in one.answers})
    texts = dict(zip(requests, await asyncio.gather(*(_content(visit, one) for one in requests)), strict=True))
    return visit.page(
        "experiment_answers.html",
        e=experiment,
        arms=[(arm, described(arm)) for arm in experiment.spec.arms],
        samples=[_shown(one, texts) for one in found.samples],
        paired=experiment.spec.paired,
    )


async def _content(visit: Visit, request: str) -> Content | str:
    """What was said, or why it cannot be read."""
    try:
        return await visit.api.get(f"{at('requests', request)}/content", Content)
    except PenstockError as error:
        return error.message


def _shown(sample: Sample, texts: dict[str, Content | str]) -> Shown:
    told = [_told(answer, texts[answer.request]) for answer in sample.answers]
    if len(told) == 2 and not any(one.why for one in told):
        sides = apart(*("".join(span.text for span in one.spans) for one in told))
        told = [msgspec.structs.replace(one, spans=tuple(side)) for one, side in zip(told, sides, strict=True)]
    first = texts[sample.answers[0].request]
    asked = "" if isinstance(first, str) else _asked(first)
    return Shown(at=sample.at, asked=asked, answers=tuple(told), similarity=sample.similarity, judged=sample.judged)


def _asked(content: Content) -> str:
    """The last thing that a user says."""
    mine = [one.text for one in content.messages if one.role in {"user", "prompt"}]
    return mine[-1] if mine else ""


def _told(answer: Answer, content: Content | str) -> Told:
    if isinstance(content, str):
        return Told(arm=answer.arm, request=answer.request, why=content)
    if content.state != "readable":
        return Told(arm=answer.arm, request=answer.request, why=content.why or "It cannot be read.")
    text = "".join(
        one.text for one in content.replies if one.index == answer.choice and one.field in {"content", "text"}
    )
    spans = (Span(text=text, own=False),) if text else ()
    return Told(arm=answer.arm, request=answer.request, spans=spans, why="" if text else "It said nothing.")


async def report(visit: Visit) -> Response:
    """All of it on one page, to print: hypothesis, design, verdict, estimates, evidence and decision."""
    values: dict[str, Any] = await read_page(visit)
    return visit.page("experiment_report.html", **values)


async def export(visit: Visit) -> Response:
    """The export of the API, as a file."""
    name, kind, table = visit.path("name"), visit.query("format") or "json", visit.query("table") or "comparisons"
    if kind not in {"json", "csv"} or table not in TABLES:
        raise BadRequest("An export is json, or csv of one of its tables.", param="format")
    content = await visit.api.call("GET", f"{at('experiments', name)}/export", query={"format": kind, "table": table})
    ending = f"{name}.json" if kind == "json" else f"{name}-{table}.csv"
    return Response(
        content,
        media_type="application/json" if kind == "json" else "text/csv; charset=utf-8",
        headers={"content-disposition": f'attachment; filename="{ending}"'},
    )
