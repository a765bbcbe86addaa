"""What a client gets when an engine fails, case by case: `python -m bench.faults` plays the table of the tests and prints it."""

import argparse
import sys
import tempfile
from pathlib import Path

import uvloop

from bench.line import Line
from tests.gateway.fault_table import CASES, Case, play, table


async def fault_line(data: Path, *, cases: tuple[Case, ...] = CASES) -> Line:
    """How many of the table's cases are as it says, alone and beside a replica that is well."""
    alone, beside = await play(data / "alone", cases), await play(data / "beside", cases, second=True)
    wrong = [row for row in (*alone, *beside) if row.problems]
    if wrong:
        raise AssertionError("; ".join(f"{row.case.id}: {', '.join(row.problems)}" for row in wrong))
    rescued = sum(row.case.elsewhere for row in beside)
    return Line(
        "{faults} faults: each client got the truth in at most {longest:.1f} s; beside a replica that is well {rescued} go unnoticed",
        {"faults": len(alone), "longest": max(row.seconds for row in alone), "rescued": rescued},
    )


async def _main(*, second: bool) -> int:
    with tempfile.TemporaryDirectory() as folder:
        rows = await play(Path(folder), second=second)
    print(table(rows))
    return 1 if any(row.problems for row in rows) else 0


def main() -> int:
    """Prints the table; 1 if a line of it is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--second", action="store_true", help="with a second replica, which is well")
    return uvloop.run(_main(second=parser.parse_args().second)) or 0


if __name__ == "__main__":
    sys.exit(main())
