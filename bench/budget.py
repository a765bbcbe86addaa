"""The budget table of docs/benchmarks.md: every step of a request's way, what it may cost and what it was measured to cost.

`python -m bench.budget --write` measures and writes the table, and so does `make bench`. What a step may cost is decided here; one that
costs more is marked, and is to be made cheaper or to be given more by a decision.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import uvloop

import penstock.gateway.walk
from bench.alone import alone_us
from bench.load import HERE

PAGE = HERE.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- budget: written by `python -m bench.budget --write` -->", "<!-- end of the budget -->"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of `penstock.gateway.walk`.

    Attributes:
        name: as the table and the measurement call it.
        calls: what the walk calls for it.
        what: what is counted.
        budget_us: CPU microseconds that it may cost: of a request, or of an event where `what` says so.
        always: it is on every request's way; else it is there where a feature is on, and costs what is told beside.
    """

    name: str
    calls: tuple[str, ...]
    what: str
    budget_us: float
    always: bool = True


STEPS = (
    Step(name="decode", calls=("decode",), what="the envelope of a 1 KB body", budget_us=5.0),
    Step(name="authenticate", calls=("authenticate",), what="a key's hash looked up", budget_us=1.5),
    Step(
        name="count",
        calls=("hold", "try_count", "count"),
        what="a request of key and tenant, from leases",
        budget_us=1.5,
    ),
    Step(name="resolve", calls=("resolve",), what="route, pool, rights", budget_us=1.0),
    Step(name="amend", calls=("amend",), what="what the engine is asked beside", budget_us=0.5),
    Step(name="recall", calls=("recall",), what="the cache's key and a look-up that finds nothing", budget_us=5.0),
    Step(
        name="reserve",
        calls=("try_reserve", "reserve"),
        what="tokens and places of key and tenant, from leases",
        budget_us=2.5,
    ),
    Step(
        name="admit",
        calls=("try_enter", "enter", "prompt_tokens"),
        what="a place in a pool that has some",
        budget_us=1.0,
    ),
    Step(
        name="dispatch",
        calls=("dispatch",),
        what="a replica chosen among two by prefix, asked, and its answer read",
        budget_us=18.0,
    ),
    Step(name="relay", calls=("relay",), what="usage and finish found, the answer kept", budget_us=3.0),
    Step(
        name="settle",
        calls=("used", "release", "cost", "settle"),
        what="place, tokens and money given back",
        budget_us=3.0,
    ),
    Step(
        name="record",
        calls=("add", "promise", "end"),
        what="record, journal, metrics and the reply's bytes, of many requests in one turn",
        budget_us=12.0,
    ),
    Step(
        name="carry",
        calls=("carry",),
        what="a trace and the client's name for its request",
        budget_us=5.0,
        always=False,
    ),
    Step(name="screen", calls=("screen",), what="three content rules on what goes in", budget_us=6.0, always=False),
    Step(
        name="seek",
        calls=("seek",),
        what="a question's vector, of an engine that answers at once, and a shelf that is empty",
        budget_us=800.0,
        always=False,
    ),
    Step(name="replay", calls=("replay",), what="an answer from the cache", budget_us=1.0, always=False),
    Step(name="share", calls=("share",), what="a flight that nobody else joins", budget_us=80.0, always=False),
    Step(
        name="relay_both",
        calls=("relay_both",),
        what="a second model asked beside, and both answers joined",
        budget_us=120.0,
        always=False,
    ),
    Step(name="draft", calls=("draft",), what="a cascade whose first answer convinces", budget_us=12.0, always=False),
    Step(
        name="escalate",
        calls=("escalate",),
        what="a cascade whose first answer does not: the second model's request too",
        budget_us=45.0,
        always=False,
    ),
    Step(
        name="elsewhere",
        calls=("elsewhere",),
        what="the pool that the route falls back to, where the first has no replica",
        budget_us=30.0,
        always=False,
    ),
    Step(
        name="relay_stream",
        calls=("relay_stream",),
        what="an event of a stream, all of it",
        budget_us=4.0,
        always=False,
    ),
    Step(
        name="resume_stream",
        calls=("resume_stream",),
        what="an event of a stream that could be gone on with, over one that could not",
        budget_us=4.0,
        always=False,
    ),
)
# What is no step of the walk: (name, what, budget). `edge` is measured alone, `together` is all of a request in its own order.
AROUND = (
    ("edge", "the request read, its head and body taken apart, and a fiber begun", 8.0),
    ("together", "a whole request, one step after the other", 60.0),
)


def rows(us: dict[str, float]) -> list[tuple[str, str, float, float]]:
    """Name, what, budget and measured microseconds of every line, in the order of the walk; what was not measured is an error.

    Raises:
        KeyError: if a line has no measurement.
    """
    (edge, about, most), (whole, about_all, most_of_all) = AROUND
    found = [(edge, about, most, us[edge])]
    found += [(step.name, step.what, step.budget_us, us[step.name]) for step in STEPS if step.always]
    found.append((whole, about_all, most_of_all, us[whole]))
    return found + [(step.name, step.what, step.budget_us, us[step.name]) for step in STEPS if not step.always]


def circumstances(now: datetime) -> str:
    """When and on what was measured, in general words."""
    compiled = not str(penstock.gateway.walk.__file__).endswith(".py")
    return (
        f"{now:%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}) with a load of {os.getloadavg()[0]:.1f}, "
        f"Python {sys.version_info.major}.{sys.version_info.minor}, {'compiled' if compiled else 'interpreted'} modules"
    )


def printed(us: dict[str, float]) -> list[str]:
    """The table for a terminal."""
    return [
        f"{name:14} {value:8.2f} us of {most:6.1f}{' OVER' if value > most else '     '}  {what}"
        for name, what, most, value in rows(us)
    ]


def table(us: dict[str, float], when: str) -> str:
    """The table for the page."""
    lines = [
        BEGIN,
        f"Measured {when}:",
        "",
        "| step | what is counted | may cost, us | measured, us |",
        "|---|---|---|---|",
    ]
    for name, what, most, value in rows(us):
        shown = f"**{value:.1f}, over**" if value > most else f"{value:.1f}"
        lines.append(f"| `{name}` | {what} | {most:g} | {shown} |")
    return "\n".join([*lines, END])


def write(us: dict[str, float], page: Path = PAGE) -> None:
    """Puts the table in the place of the one that stands in `page`.

    Raises:
        ValueError: if there is no place for it.
    """
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no lines {BEGIN!r} and {END!r}")
    page.write_text(before + table(us, circumstances(datetime.now(UTC))) + after)


def main() -> int:
    """Prints the table, or JSON with `--json`; puts it into the page with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    us = uvloop.run(alone_us(rounds=options.rounds))
    if options.write:
        write(us)
    if options.json:
        print(json.dumps({name: {"us": value, "budget_us": most} for name, _, most, value in rows(us)}))
        return 0
    for line in printed(us):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
