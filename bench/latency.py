"""p99 at 1,000 requests/s, beside nginx's and beside nothing at all: `make bench-latency`, and a part of `make bench`.

All of them run at the same time and are asked in short turns, so that what else the machine does meets them alike; the median over the turns is told.
With `--realtime` (as root) they go before whatever else the machine does, which then tells of nothing but themselves.
"""

import argparse
import os
import statistics
import sys
from contextlib import ExitStack

import msgspec

from bench.load import HERE, fire, upstream
from bench.targets import Running, nginx, penstock

RATE = 1000


class Added(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of p99: with nothing in between, through nginx, through penstock; medians over the turns."""

    direct_ms: float
    nginx_ms: float
    penstock_ms: float

    @property
    def ratio(self) -> float:
        """What penstock adds, of what nginx adds."""
        return (self.penstock_ms - self.direct_ms) / max(1e-6, self.nginx_ms - self.direct_ms)

    def __str__(self) -> str:
        """One line."""
        return (
            f"p99 added at {RATE} requests/s to the {self.direct_ms:.2f} ms without anything in between: "
            f"{self.penstock_ms - self.direct_ms:.2f} ms, nginx {self.nginx_ms - self.direct_ms:.2f} ms, ratio {self.ratio:.1f}"
        )


def measure(*, turns: int, seconds: float) -> Added:
    """Asks each in turn, `turns` times for `seconds`; what comes first changes from turn to turn."""
    seen: dict[str, list[float]] = {"direct": [], "nginx": [], "penstock": []}
    with ExitStack() as stack:
        behind = stack.enter_context(upstream())
        asked = {
            "direct": Running(port=behind, pid=os.getpid()),
            "nginx": stack.enter_context(nginx(behind)),
            "penstock": stack.enter_context(penstock(behind)),
        }
        for turn in range(turns + 1):
            names = list(asked)
            for name in names[turn % 3 :] + names[: turn % 3]:
                target = asked[name]
                figures = fire(
                    port=target.port, pid=target.pid, connections=64, seconds=seconds, rate=RATE,
                    body=HERE / "body1k.json", headers=target.headers,
                )  # fmt: skip
                if turn:  # the first one opens connections
                    seen[name].append(figures.p99_ms)
            print(f"  turn {turn}: " + ", ".join(f"{n} {s[-1]:.2f} ms" for n, s in seen.items() if s), file=sys.stderr)
    return Added(
        direct_ms=statistics.median(seen["direct"]),
        nginx_ms=statistics.median(seen["nginx"]),
        penstock_ms=statistics.median(seen["penstock"]),
    )


def main() -> int:
    """Prints the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--realtime", action="store_true")
    wanted = parser.parse_args()
    if wanted.realtime:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # children inherit it
    print(measure(turns=wanted.turns, seconds=wanted.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
