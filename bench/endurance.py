"""`make bench-endurance`: whether a worker's memory stays as it is over many requests.

Half of the requests are answered whole and half of the time is spent on streams; what the gateway's processes hold resident is read after each slice.
"""

import argparse
import json
import sys

from bench.load import HERE, fire, upstream
from bench.targets import penstock

_SLICES = 10


def grown(slices: int, requests: int) -> list[tuple[int, float]]:
    """Requests so far and MiB resident, after a warm-up of one slice and then after each."""
    found: list[tuple[int, float]] = []
    done = 0
    with upstream(interval_us=100) as behind, penstock(behind) as target:
        for _ in range(slices + 1):
            until = done + requests // slices
            while done < until:
                for body, stream in (("body1k.json", False), ("body1k_stream.json", True)):
                    figures = fire(
                        port=target.port, pid=target.pid, connections=64, seconds=2, body=HERE / body, stream=stream,
                        headers=target.headers,
                    )  # fmt: skip
                    done += int(figures.per_second * 2 / (100 if stream else 1))
            found.append((done, figures.resident_mib))
            print(f"  {done:9,} requests  {figures.resident_mib:6.1f} MiB", file=sys.stderr)
    return found


def main() -> int:
    """Prints the growth; 1 if it is a tenth or more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = grown(_SLICES, options.requests)
    growth = found[-1][1] / found[0][1] - 1
    if options.json:
        print(json.dumps({"slices": found, "growth": growth}))
    else:
        print(f"{found[-1][0] - found[0][0]:,} requests after {found[0][0]:,}: {growth * 100:+.1f} % resident memory")
    return int(growth >= 0.1)


if __name__ == "__main__":
    sys.exit(main())
