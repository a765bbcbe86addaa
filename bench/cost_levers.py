"""What a cascade and a trimmed context save, and what they lose, on the starter's models through a running gateway.

    python -m bench.cost_levers [--json] [--questions N]

`penstock up` is started with both starter versions. The threshold of the cascade is chosen on conversations from held-out phrasing
lines; everything that is reported is measured on the evaluation set, which nothing was chosen by. An answer is as it should be if
it is right by the evaluation's rules, or refuses what is off topic. Costs are of the example prices, and of the engines' CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bench.line import Line
from bench.process_tree import spent
from examples.support_bot.evaluate import questions
from examples.support_bot.figures import wilson
from examples.support_bot.generator import Corpus, open_corpus
from examples.support_bot.scoring import score
from examples.support_bot.shop import OFF_TOPIC, Shop, load_shop
from penstock.supervisor.values import RunRecord
from tests.gateway.house import House, until
from tests.gateway.house import running as mock_running
from tests.gateway.raw_client import ask, chat
from tests.system.starter import Up, running

RULES = [
    *(("min_token_logprob", value) for value in (-0.1, -0.2, -0.3, -0.4, -0.5, -0.6, -0.8, -1.2)),
    *(("min_mean_logprob", value) for value in (-0.01, -0.015, -0.02, -0.03, -0.04, -0.06, -0.1)),
]
DEFAULT = ("min_mean_logprob", -0.01)  # what that choice came to
MOST_LOSS = 0.005  # of answers as they should be, on the held-out conversations
_LIMIT = 96  # tokens of an answer
_TUNING = 1000  # conversations that the threshold is chosen on
_EARLIER = 8  # unrelated turns before each question, for the trim
_BUDGET = 160  # tokens, as the gateway estimates them

Messages = list[dict[str, str]]


class Case(msgspec.Struct, frozen=True):
    """One conversation whose last turn is to be answered, and what a right answer is."""

    messages: Messages
    intent: str
    facts: dict[str, str]


class Told(msgspec.Struct, frozen=True):
    """One answer: whether it is as it should be, its tokens, and how sure its model was of the least likely."""

    good: bool
    prompt: int
    completion: int
    least: float = 0.0
    mean: float = 0.0
    trimmed: int = 0
    version: str = ""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """All answers of one route, what they cost in US dollars, and the engines' CPU seconds."""

    told: list[Told]
    usd: float
    cpu_s: float

    @property
    def good(self) -> int:
        """How many are as they should be."""
        return sum(one.good for one in self.told)


class Gateway:
    """The running gateway, as a client sees it; and what its metrics count."""

    def __init__(self, up: Up, shop: Shop) -> None:
        self._up = up
        self._shop = shop
        self._key = up.secret("demo.key")

    def run(self, route: str, cases: list[Case], **fields: Any) -> Run:
        """Asks `route` all of `cases`, eight at a time."""
        before, began = self._usd(route), self._cpu_s()
        with ThreadPoolExecutor(8) as pool:
            told = list(pool.map(lambda case: self._ask(route, case, fields), cases))
        return Run(told=told, usd=self._usd(route) - before, cpu_s=self._cpu_s() - began)

    def _ask(self, route: str, case: Case, fields: dict[str, Any]) -> Told:
        body = {"model": route, "messages": case.messages, "temperature": 0, "max_tokens": _LIMIT, **fields}
        request = urllib.request.Request(
            f"{self._up.gateway}/v1/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json", "authorization": f"Bearer {self._key}"},
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            answer = json.load(reply)
            dropped, version = reply.headers.get("x-penstock-trimmed"), reply.headers.get("x-penstock-version")
        choice = answer["choices"][0]
        text = choice["message"]["content"]
        scores = [one["logprob"] for one in (choice.get("logprobs") or {"content": []})["content"]]
        return Told(
            good=self._good(case, text),
            prompt=answer["usage"]["prompt_tokens"],
            completion=answer["usage"]["completion_tokens"],
            least=min(scores, default=0.0),
            mean=sum(scores) / max(1, len(scores)),
            trimmed=int(dropped or 0),
            version=version or "",
        )

    def _good(self, case: Case, text: str) -> bool:
        before = "\n".join(message["content"] for message in case.messages)
        found = score(text, case.intent, case.facts, self._shop, before)
        return found.said == OFF_TOPIC if case.intent == OFF_TOPIC else found.right

    def _usd(self, route: str) -> float:
        with urllib.request.urlopen(f"{self._up.gateway}/metrics", timeout=30) as reply:
            lines = reply.read().decode().splitlines()
        wanted = f'route="{route}"'
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith("penstock_cost_usd_total{") and wanted in line
        )

    def _cpu_s(self) -> float:
        return sum(spent(pid).cpu_us for pid in _engines(self._up.data)) * 1e-6


def _engines(data: Path) -> Iterator[int]:
    """The engines' main processes."""
    for file in (data / "run").glob("*.json"):
        record = msgspec.json.decode(file.read_bytes(), type=RunRecord)
        if record.spec.kind == "engine" and record.pid:
            yield record.pid


def applied(up: Up, documents: list[dict[str, Any]]) -> None:
    """Makes resources of `documents`, and waits until each route answers."""
    request = urllib.request.Request(
        f"{up.control}/api/v1/apply",
        "\n---\n".join(json.dumps(one) for one in documents).encode(),
        {"content-type": "application/yaml", "authorization": f"Bearer {up.secret('admin.key')}"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        reply.read()
    key = up.secret("demo.key")
    for one in documents:
        if one["kind"] == "Route":
            _await_route(up, key, one["name"])


def _await_route(up: Up, key: str, route: str) -> None:
    body = {"model": route, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    end = time.monotonic() + 120
    while True:
        request = urllib.request.Request(
            f"{up.gateway}/v1/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json", "authorization": f"Bearer {key}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60):
                return
        except OSError as error:
            if time.monotonic() > end:
                raise RuntimeError(f"the route {route} does not answer: {error}") from None
            time.sleep(0.2)


SMALL, LARGE = {"build": "support-bot:v1.0.0"}, {"build": "support-bot:v1.1.0"}


def stack(rule: tuple[str, float] | None = None, *, name: str = "", trim: bool = False) -> list[dict[str, Any]]:
    """Both models as routes of their own; a cascade by `rule`; a trimmed route."""
    documents: list[dict[str, Any]] = [
        {"kind": "Pool", "name": "small", "spec": SMALL},
        {"kind": "Pool", "name": "large", "spec": LARGE},
        {"kind": "Route", "name": "small", "spec": {"to": [{"pool": "small"}]}},
        {"kind": "Route", "name": "large", "spec": {"to": [{"pool": "large"}]}},
    ]
    if rule is not None:
        plan = {"first": {"pool": "small"}, "then": {"pool": "large"}, rule[0]: rule[1]}
        documents.append({"kind": "Route", "name": name, "spec": {"to": [{"pool": "large"}], "cascade": plan}})
    if trim:
        for route, keep in (("trimmed", 2), ("last-turn", 1)):
            policy = {"budget_tokens": _BUDGET if keep > 1 else 1, "keep_last": keep}
            documents.append({"kind": "Route", "name": route, "spec": {"to": [{"pool": "large"}], "trim": policy}})
    return documents


def evaluation(count: int | None) -> list[Case]:
    """The evaluation set."""
    return [Case(one.turns, one.intent, one.facts) for one in questions()][:count]


def held_out(count: int) -> list[Case]:
    """Conversations from phrasing lines that no model was trained on, and the evaluation set does not hold."""
    corpus, rng = open_corpus(held_out=True), random.Random(7)
    found = [corpus.conversation(rng) for _ in range(count)]
    return [Case(one.messages()[:-1], one.turns[-1].intent, dict(one.turns[-1].slots)) for one in found]


def lengthened(cases: list[Case], corpus: Corpus, shop: Shop) -> list[Case]:
    """`cases` with the shop's system message, and so many questions of somebody else's and their answers, before them."""
    rng = random.Random(11)
    found = []
    for case in cases:
        earlier: Messages = []
        while len(earlier) < 2 * _EARLIER:
            earlier += [one for one in corpus.conversation(rng).messages() if one["role"] != "system"]
        opening = [{"role": "system", "content": shop.system}, *earlier[: 2 * _EARLIER]]
        found.append(Case([*opening, *case.messages], case.intent, case.facts))
    return found


def chosen(small: Run, large: Run) -> dict[str, Any]:
    """The rule that escalates least of those that lose at most `MOST_LOSS`; figures of all, from answers of both alone."""
    rows: list[dict[str, Any]] = []
    for name, threshold in RULES:
        pairs = list(zip(small.told, large.told, strict=True))
        kept = [(a.least if name == "min_token_logprob" else a.mean) >= threshold for a, _ in pairs]
        good = sum(a.good if keep else b.good for keep, (a, b) in zip(kept, pairs, strict=True))
        rows.append(
            {"rule": name, "threshold": threshold, "escalated": 1 - sum(kept) / len(kept), "good": good / len(kept)}
        )
    best = large.good / len(large.told)
    fit = [row for row in rows if row["good"] >= best - MOST_LOSS] or rows[:1]
    least = min(fit, key=lambda row: row["escalated"])
    return {
        "rows": rows,
        "large": best,
        "small": small.good / len(small.told),
        "rule": least["rule"],
        "threshold": least["threshold"],
    }


def compared(run: Run, base: Run) -> dict[str, Any]:
    """`run` beside `base`, which answered the same questions: savings, and the paired difference with its 95 % interval."""
    total = len(run.told)
    differences = [a.good - b.good for a, b in zip(run.told, base.told, strict=True)]
    mean = sum(differences) / total
    spread = math.sqrt(sum((one - mean) ** 2 for one in differences) / max(1, total - 1) / total) * 1.959963984540054
    low, high = wilson(run.good, total)
    return {
        "questions": total,
        "good": run.good / total,
        "low": low,
        "high": high,
        "difference": mean,
        "difference_low": mean - spread,
        "difference_high": mean + spread,
        "usd_per_1000": run.usd / total * 1000,
        "saved_usd": 1 - run.usd / base.usd,
        "cpu_s_per_1000": run.cpu_s / total * 1000,
        "saved_cpu": 1 - run.cpu_s / base.cpu_s if base.cpu_s else math.nan,
        "prompt_tokens": sum(one.prompt for one in run.told) / total,
        "by_small": sum(one.version.endswith("v1.0.0") for one in run.told) / total,
        "trimmed": sum(one.trimmed for one in run.told) / total,
    }


def measured_cascade(up: Up, gateway: Gateway, count: int | None) -> dict[str, Any]:
    """The cascade at the threshold that was chosen, and at others beside it, next to each model alone."""
    tuning = held_out(_TUNING if count is None else count)
    choice = chosen(gateway.run("small", tuning, logprobs=True), gateway.run("large", tuning))
    rules = [rule for rule in RULES if rule[0] == choice["rule"]]
    at = rules.index((choice["rule"], choice["threshold"]))
    near = rules[max(0, at - 1) : at + 3]
    cases = evaluation(count)
    large = gateway.run("large", cases)
    rows = {"large alone": compared(large, large), "small alone": compared(gateway.run("small", cases), large)}
    for number, rule in enumerate(near):
        name = f"cascade-{number}"
        applied(up, stack(rule, name=name))
        rows[f"cascade {rule[0]} {rule[1]}"] = compared(gateway.run(name, cases), large)
    return {"tuning": choice, "rows": rows}


def measured_trim(up: Up, gateway: Gateway, shop: Shop, count: int | None) -> dict[str, Any]:
    """Long chats in full and trimmed; and the evaluation set's own chats of several turns, in full and cut to the last turn."""
    applied(up, stack(trim=True))
    cases = evaluation(count)
    long = lengthened(cases, open_corpus(held_out=True), shop)
    whole = gateway.run("large", long)
    own = [case for case in cases if len(case.messages) > 2] or cases[:2]
    several = gateway.run("large", own)
    return {
        "long, in full": compared(whole, whole),
        "long, trimmed": compared(gateway.run("trimmed", long), whole),
        "several turns, in full": compared(several, several),
        "several turns, the last alone": compared(gateway.run("last-turn", own), several),
    }


def table(title: str, rows: dict[str, Any]) -> str:
    """A Markdown table."""
    lines = [
        f"### {title}",
        "",
        "| | as they should be | 95 % | difference, points (95 %) | $ per 1,000 | saved | CPU s per 1,000 | saved | prompt tokens | by the small one | turns left out |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        difference = (
            f"{row['difference']:+.1%} ({row['difference_low']:+.1%} to {row['difference_high']:+.1%})".replace("%", "")
        )
        lines.append(
            f"| {name} | {row['good']:.1%} of {row['questions']} | {row['low']:.1%} to {row['high']:.1%} | {difference} "
            f"| {row['usd_per_1000']:.5f} | {row['saved_usd']:.0%} | {row['cpu_s_per_1000']:.1f} | {row['saved_cpu']:.0%} "
            f"| {row['prompt_tokens']:.0f} | {row['by_small']:.0%} | {row['trimmed']:.1f} |"
        )
    return "\n".join(lines)


def measure(count: int | None = None) -> dict[str, Any]:
    """Everything, on an installation of its own."""
    shop = load_shop()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data") as up:
        gateway = Gateway(up, shop)
        applied(up, stack())
        return {
            "cascade": measured_cascade(up, gateway, count),
            "trim": measured_trim(up, gateway, shop, count),
        }


async def cascade_line(data: Path) -> Line:
    """The cascade at the threshold that the held-out conversations chose, beside the larger model alone."""
    row = await asyncio.to_thread(_beside_large, data, stack(DEFAULT, name="cascade"), "cascade", evaluation(None))
    if row["saved_usd"] < 0.1 or row["difference"] < -0.05:
        raise AssertionError(f"{row['saved_usd']:.0%} saved at {row['difference']:+.1%}")
    return saved_line(row, "; {by_small:.0%} answered by the small model", by_small=row["by_small"])


async def trim_line(data: Path) -> Line:
    """Long chats trimmed, beside the same in full."""
    long = lengthened(evaluation(None), open_corpus(held_out=True), load_shop())
    row = await asyncio.to_thread(_beside_large, data, stack(trim=True), "trimmed", long)
    if row["saved_usd"] < 0.3 or row["difference"] < -0.05:
        raise AssertionError(f"{row['saved_usd']:.0%} saved at {row['difference']:+.1%}")
    more = "; {trimmed:.1f} of {earlier} unrelated turns and more left out"
    return saved_line(row, more, trimmed=row["trimmed"], earlier=_EARLIER)


def _beside_large(data: Path, documents: list[dict[str, Any]], route: str, cases: list[Case]) -> dict[str, Any]:
    with running(data / "data") as up:
        gateway = Gateway(up, load_shop())
        applied(up, documents)
        large = gateway.run("large", cases)
        return compared(gateway.run(route, cases), large)


def saved_line(row: dict[str, Any], more: str, **figures: float) -> Line:
    """What was saved and lost, and `more` with its figures."""
    said = "{questions} questions: {saved_usd:.0%} of the cost saved, {difference:+.1f} points of right answers ({low:+.1f} to {high:+.1f})"
    points = {"difference": "difference", "low": "difference_low", "high": "difference_high"}
    told = {name: row[of] * 100 for name, of in points.items()}
    return Line(said + more, {"questions": row["questions"], "saved_usd": row["saved_usd"], **told, **figures})


def _gathered(house: House, count: int) -> bool:
    return len(house.worker.gateway.flights) == 1 and _members(house) == count


async def coalescing_line(data: Path, *, count: int = 100) -> Line:
    """`count` equal requests at a time, whole and as streams."""
    figures: dict[str, float] = {"count": count}
    for stream in (False, True):
        async with mock_running(data / str(stream), route={"coalesce": True}) as house:
            request = chat("!wait one two three", temperature=0, stream=stream)
            asked = [asyncio.create_task(ask(house.port, request, 60)) for _ in range(count)]
            await until(partial(_gathered, house, count))
            begun = time.perf_counter()
            house.mock.gate.set()
            answers = {one.body for one in await asyncio.gather(*asked)}
            took = (time.perf_counter() - begun) * 1e3
            await house.settled()
            shared = sum(one.cache == "coalesced" for one in house.exchanges())
            if (len(answers), len(house.mock.asked), shared) != (1, 1, count - 1):
                raise AssertionError(f"{len(house.mock.asked)} upstream requests, {len(answers)} different answers")
            figures |= {"streams" if stream else "requests": took, "asked": len(house.mock.asked), "shared": shared}
    said = "{count} equal requests in {requests:.0f} ms and {count} equal streams in {streams:.0f} ms: {asked} upstream request each, {shared} at no cost"
    return Line(said, figures)


def _members(house: House) -> int:
    return sum(flight.members for flight in house.worker.gateway.flights.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--questions", type=int, default=None, help="only so many of each set")
    args = parser.parse_args()
    found = measure(args.questions)
    if args.json:
        print(json.dumps(found, indent=2))
        return
    tuning = found["cascade"]["tuning"]
    print("Held-out conversations (the threshold is chosen here):")
    for row in tuning["rows"]:
        print(
            f"  {row['rule']} {row['threshold']:6}: {row['escalated']:.1%} escalated, {row['good']:.1%} as they should be"
        )
    alone = f"large alone {tuning['large']:.1%}, small alone {tuning['small']:.1%}"
    print(f"  {alone}; chosen: {tuning['rule']} {tuning['threshold']}\n")
    print(table("Cascade, on the evaluation set", found["cascade"]["rows"]) + "\n")
    print(table("Trim, on the evaluation set after unrelated turns", found["trim"]))


if __name__ == "__main__":
    main()
