"""A worker under normal load while `slowhttptest` holds a thousand connections in its header, body and read modes: what becomes of normal p99.

`python -m bench.slow_clients [--rounds N] [--seconds S] [--connections N]`: rounds are interleaved, medians are told. Beside quiet
rounds there are some in which a bystander is attacked instead, another gateway on the load's own core: what the attacker does to the load generator,
and not to the worker, is seen there.
With `--realtime` (as root) worker, upstream and normal load go before whatever else the machine does, the attacker included: for a machine that
others use too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import CORES, LOAD_CORE, OUT, Figures, fire, free_port, pinned, upstream, wait_for_port
from bench.targets import Running, penstock

_BODY = Path(__file__).parent / "body1k.json"
_RATE = 300.0  # normal requests per second
MODES = {
    "header": ("-H", "-i", "5", "-t", "GET", "-x", "24"),
    "body": ("-B", "-i", "5", "-t", "POST", "-s", "8192", "-x", "10"),
    "read": ("-X", "-t", "GET", "-k", "8", "-w", "512", "-y", "1024", "-n", "5", "-z", "32"),
}


@contextmanager
def attack(port: int, mode: str, connections: int, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """`slowhttptest` in one of its modes, on the core of the load or, if there are more, on another one."""
    program = shutil.which("slowhttptest")
    if program is None:
        raise RuntimeError("slowhttptest is not installed: scripts/system-packages does that")
    core = CORES[1] if len(CORES) > 2 else CORES[0]
    path = "/openapi.json" if mode == "read" else "/v1/chat/completions"
    with (OUT / f"slow-{mode}.log").open("wb") as log:
        process = subprocess.Popen(
            ["chrt", "-o", "0", "taskset", "-c", str(core), program, *MODES[mode], "-c", str(connections), "-r", str(connections // 4),
             "-l", str(int(seconds)), "-p", "3", "-u", f"http://127.0.0.1:{port}{path}"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


def _normal(target: Running, seconds: float) -> Figures:
    return fire(
        port=target.port,
        pid=target.pid,
        connections=16,
        seconds=seconds,
        body=_BODY,
        headers=target.headers,
        rate=_RATE,
    )


@contextmanager
def _bystander() -> Iterator[int]:
    """Another gateway, on the core of the load; its port."""
    data, port = OUT / f"bystander-{time.time_ns()}", free_port()
    (data / "gateway").mkdir(parents=True)
    (data / "gateway" / "snapshot.json").write_text('{"generation":1}')
    command = ["chrt", "-o", "0", Path(".venv/bin/penstock"), "gateway", "--data", data, "--gateway-port", str(port)]
    with pinned(command, LOAD_CORE, log=OUT / "bystander.log") as process:
        wait_for_port(port, process)
        yield port


def measure(target: Running, bystander: int, mode: str, *, rounds: int, seconds: float, connections: int) -> str:
    """The line of one mode."""
    quiet: list[Figures] = []
    beside: list[Figures] = []
    attacked: list[Figures] = []
    for _ in range(rounds):
        quiet.append(_normal(target, seconds))
        for port, figures in ((bystander, beside), (target.port, attacked)):
            with attack(port, mode, connections, seconds + 6):
                time.sleep(5.0)  # it opens its connections at a quarter of them a second
                figures.append(_normal(target, seconds))
            time.sleep(1.0)
    before, control, after = (statistics.median(one.p99_ms for one in figures) for figures in (quiet, beside, attacked))
    bad = sum(one.bad for one in attacked)
    use = statistics.median(one.use for one in attacked) - statistics.median(one.use for one in beside)
    moved = f"{(after / before - 1) * 100:+.0f} %"
    own = f"{(after / control - 1) * 100:+.0f} %"
    return f"{mode:8}{before:12.2f}{control:12.2f}{after:12.2f}{moved:>10}{own:>14}{use * 100:9.1f} %{bad:8}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--realtime", action="store_true")
    wanted = parser.parse_args()
    if wanted.realtime:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # children inherit it
    print(f"{_RATE:.0f} normal requests a second, {wanted.connections:,} slow connections\n")
    print(
        f"{'mode':8}{'quiet p99 ms':>12}{'bystander':>12}{'attacked':>12}{'to quiet':>10}{'to bystander':>14}{'CPU':>11}{'failed':>8}"
    )
    with upstream() as port, penstock(port) as target, _bystander() as bystander:
        _normal(target, 2.0)
        for mode in MODES:
            print(
                measure(
                    target,
                    bystander,
                    mode,
                    rounds=wanted.rounds,
                    seconds=wanted.seconds,
                    connections=wanted.connections,
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
