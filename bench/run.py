"""`make bench`: what a request and a streamed event cost, beside the peers, measured in one run.

One core carries load and upstream, the other the target. CPU microseconds are of the target's whole process tree. Rounds are
interleaved (every target, then every target again) and the median is printed, since machines are shared and noisy.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from bench import engine, latency
from bench.load import HERE, OUT, Figures, fire, upstream
from bench.targets import targets

_LEFT_OUT = {
    "nginx": ("steady",),
    "vllm-router": ("steady",),
    "litellm": ("steady",),
    "penstock, rules": ("json", "steady"),
    "penstock, two workers": ("chunk",),
}
_STEADY = 4000  # requests a second for each worker, over 32 connections: about half of what one core can do


def _median(figures: list[float]) -> float:
    return statistics.median(figures or [math.nan])


def measure(name: str, seconds: float, rounds: int) -> dict[str, list[Figures]]:
    """All figures of one target, one list an exercise."""
    start = targets()[name]
    found: dict[str, list[Figures]] = {}
    workers = 2 if name == "penstock, two workers" else 1
    with upstream() as behind, start(behind) as target:
        for exercise, connections, rate, body, stream in (
            ("warm-up", 32, 0, "body1k.json", False),
            *((("json", 32, 0, "body1k.json", False), ("chunk", 128, 0, "body1k_stream.json", True)) * rounds),
            ("steady", 32 * workers, _STEADY * workers, "body1k.json", False),
        ):
            if exercise in _LEFT_OUT.get(name, ()):
                continue
            figures = fire(
                port=target.port, pid=target.pid, connections=connections, seconds=seconds, rate=rate,
                body=HERE / body, stream=stream, headers=target.headers,
            )  # fmt: skip
            found.setdefault(exercise, []).append(figures)
            print(
                f"  {name:21} {exercise:8} {figures.cpu_us:9.1f} us  {figures.per_second:9.0f}/s  p99 {figures.p99_ms:8.2f} ms",
                file=sys.stderr,
            )
    return found


def main() -> int:
    """Prints the table, or JSON with `--json`; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="targets, separated by semicolons")
    parser.add_argument("--skip-engine", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = [n for n in targets() if not options.only or n in options.only.split(";")]
    gathered: dict[str, dict[str, list[Figures]]] = {name: {} for name in names}
    for _ in range(options.rounds):
        for name in names:
            for exercise, figures in measure(name, options.seconds, 1).items():
                gathered[name].setdefault(exercise, []).extend(figures)
    rows = {
        name: {
            "json_us": _median([f.cpu_us for f in found.get("json", [])]),
            "chunk_us": _median([f.cpu_us for f in found.get("chunk", [])]),
            "json_per_second": _median([f.per_second for f in found.get("json", [])]),
            "steady_us": _median([f.cpu_us for f in found.get("steady", [])]),
            "resident_mib": max(f.resident_mib for fs in found.values() for f in fs),
            "bad": sum(f.bad for fs in found.values() for f in fs),
        }
        for name, found in gathered.items()
    }
    added = latency.measure(turns=3 * options.rounds, seconds=2.0) if {"penstock", "nginx"} <= set(names) else None
    tokens = [] if options.skip_engine else engine.measure_starter()
    told = {"gateways": rows, "p99_at_1000": msgspec.to_builtins(added), "engine": tokens}
    OUT.mkdir(exist_ok=True)
    (OUT / "result.json").write_bytes(msgspec.json.encode(told))
    if options.json:
        print(json.dumps(told))
        return 0
    print(
        f"\n{'gateway':21} {'us/request':>11} {'us/chunk':>9} {'requests/s':>11} {'MiB':>6} {'bad':>5}   ratio to vllm-router"
    )
    base = rows.get("vllm-router")
    for name, row in rows.items():
        ratio = (
            f"{row['json_us'] / base['json_us']:.2f} a request, {row['chunk_us'] / base['chunk_us']:.2f} a chunk"
            if base
            else "not installed (make bench-peers)"
        )
        print(
            f"{name:21} {row['json_us']:11.1f} {row['chunk_us']:9.1f} {row['json_per_second']:11.0f} {row['resident_mib']:6.0f} {row['bad']:5.0f}   {ratio}"
        )
    for line in [*([str(added)] if added else []), *_second_worker(rows), *engine.table(tokens)]:
        print(line)
    missed = 0
    for what, figure, target in _held(rows, added, tokens):
        print(f"{'ok' if figure <= target else 'MISSED':6} {what}: {figure:.2f} (at most {target:.2f})")
        missed += not figure <= target
    return 1 if missed else 0


def _held(
    rows: dict[str, dict[str, float]], added: latency.Added | None, tokens: list[dict[str, Any]]
) -> Iterator[tuple[str, float, float]]:
    """What is to be kept: its name, the figure, and what it may be at the most. Of targets that are not installed nothing is said."""
    ours, rules, two = rows.get("penstock"), rows.get("penstock, rules"), rows.get("penstock, two workers")
    router, lite = rows.get("vllm-router"), rows.get("litellm")
    if ours and router:
        yield "CPU a request, of vllm-router's", ours["json_us"] / router["json_us"], 1.1
        yield "CPU a chunk, of vllm-router's", ours["chunk_us"] / router["chunk_us"], 1.05
    if rules and router:
        yield "CPU a chunk with rules on every delta, of vllm-router's", rules["chunk_us"] / router["chunk_us"], 1.35
    if ours and lite:
        yield "CPU a request, of LiteLLM's", ours["json_us"] / lite["json_us"], 0.01
    if ours and two:
        yield "CPU a request with two workers, of that with one", two["steady_us"] / ours["steady_us"], 1.1
    if added:
        yield f"p99 added at {latency.RATE} requests/s, of what nginx adds", added.ratio, 3.0
    for row in tokens:
        if row["streams"] == 16:
            yield "the bare pipeline's tokens a second at 16 streams, of the server's", 1 / row["ratio"], 1 / 0.85


def _second_worker(rows: dict[str, dict[str, float]]) -> list[str]:
    one, two = rows.get("penstock"), rows.get("penstock, two workers")
    if one is None or two is None:
        return []
    return [
        (
            f"CPU a request with two workers, of that with one: {two['steady_us'] / one['steady_us']:.2f} where each has {_STEADY} requests/s"
            f" ({one['steady_us']:.1f} and {two['steady_us']:.1f} us), {two['json_us'] / one['json_us']:.2f} where both share what one has to itself, core and load"
        )
    ]


if __name__ == "__main__":
    sys.exit(main())
