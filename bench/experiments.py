"""`make bench-experiments`: the claims of the experiments, each measured by the shipped code, with its seed and its target.

Each file `bench/experiments_*.py` holds a list `CHECKS` of `bench.checks.Check`; this program finds them all, so that a new subject is a
new file and nothing else. A test mirrors each (`tests/bench/test_experiments.py` runs all with a small part of the size).

    make bench-experiments                          all, at full size
    make bench-experiments ARGS="--only power"      those with the word in their name
    make bench-experiments ARGS="--part 0.1"        a tenth of the runs
    make bench-experiments ARGS="--json"            one JSON document

Exit code 1 if a target was missed.
"""

import argparse
import importlib
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from bench.checks import Check, Line, run


def found_checks() -> list[tuple[str, int]]:
    """Every check, as the module it is in and its place there."""
    found = []
    for path in sorted(Path(__file__).parent.glob("experiments_*.py")):
        module = f"bench.{path.stem}"
        found += [(module, index) for index in range(len(importlib.import_module(module).CHECKS))]
    return found


def the_check(module: str, index: int) -> Check:
    """The check at a place."""
    checks: list[Check] = importlib.import_module(module).CHECKS
    return checks[index]


def _measured(place: tuple[str, int], part: float) -> Line:
    os.nice(10)
    return run(the_check(*place), part)


def _told(line: Line) -> None:
    print(
        f"{'ok  ' if line.met else 'MISS'} {line.name:<58} {line.figure:<44} target {line.target} "
        f"(seed {line.seed}, {line.seconds:.1f} s)",
        flush=True,
    )


def main() -> int:
    """Run the checks; 1 if one misses its target."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--only", default="", help="run the checks with this word in their name")
    arguments.add_argument("--part", type=float, default=1.0, help="part of the full size")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="slow checks at a time")
    arguments.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = arguments.parse_args()
    places = [place for place in found_checks() if chosen.only in the_check(*place).name]
    lines = []
    for place in (place for place in places if not the_check(*place).slow):  # alone on the machine: some are timed
        lines.append(run(the_check(*place), chosen.part))
        if not chosen.json:
            _told(lines[-1])
    slow = [place for place in places if the_check(*place).slow]
    if slow:
        with ProcessPoolExecutor(chosen.jobs) as pool:
            for line in pool.map(_measured, slow, [chosen.part] * len(slow)):
                lines.append(line)
                if not chosen.json:
                    _told(line)
    missed = sum(not line.met for line in lines)
    if chosen.json:
        print(json.dumps({"checks": [line._asdict() for line in lines], "missed": missed}, indent=2))
    else:
        print(f"{len(lines)} checks, {missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
