"""Runs the C load generator and the mock upstream, which are compiled when they are first needed."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.process_tree import spent

HERE = Path(__file__).parent
OUT = HERE / "out"
CORES = sorted(os.sched_getaffinity(0))
LOAD_CORE, TARGET_CORE = CORES[0], CORES[-1]  # one for load and upstream, one for what is measured


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. `cpu_us` is CPU microseconds of the target's process tree for one reply, or for one event of a stream."""

    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float
    bad: int
    resident_mib: float
    use: float  # share of its core that the target was busy


def program(name: str) -> Path:
    """The compiled `name`.c of this folder."""
    source, binary = HERE / f"{name}.c", OUT / name
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        OUT.mkdir(exist_ok=True)
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", binary, source], check=True)
    return binary


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], deadline_s: float = 120.0) -> None:
    """Returns when something accepts connections on `port`.

    Raises:
        RuntimeError: if `process` ended or the deadline passed.
    """
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"nothing listens on {port} after {deadline_s} s")


@contextmanager
def pinned(
    command: Sequence[str | Path], core: int, *, log: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process on one core, ended (TERM, then KILL) when the block ends."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *map(str, command)], stdout=out, stderr=out, env={**os.environ, **(env or {})}
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def upstream(*, interval_us: int = 5000, events: int = 100) -> Iterator[int]:
    """A mock upstream on the load's core; gives its port."""
    port = free_port()
    with pinned(
        [program("upstream"), str(port), str(interval_us), str(events)], LOAD_CORE, log=OUT / "upstream.log"
    ) as process:
        wait_for_port(port, process)
        yield port


def fire(
    *, port: int, pid: int, connections: int, seconds: float, body: Path, headers: Sequence[str] = (), rate: float = 0, stream: bool = False,
    path: str = "/v1/chat/completions",
) -> Figures:  # fmt: skip
    """Loads `port` and reads what the process tree of `pid` spent meanwhile.

    Raises:
        RuntimeError: if the load generator failed.
    """
    before = spent(pid)
    done = subprocess.run(
        [
            "taskset", "-c", str(LOAD_CORE), program("load"), str(port), str(connections), str(seconds), str(rate), body,
            str(int(stream)), path, *headers,
        ],
        capture_output=True, text=True, timeout=seconds + 60, check=False,
    )  # fmt: skip
    after = spent(pid)
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr}")
    told = json.loads(done.stdout)
    if told["bad"]:
        print(f"    {told['bad']} bad replies; {done.stderr.strip()[:300]}")
    count = told["events"] if stream else told["good"]
    cpu_us = after.cpu_us - before.cpu_us
    latency = "chunk_" if stream else ""
    return Figures(
        cpu_us=cpu_us / max(count, 1),
        per_second=count / told["seconds"],
        p50_ms=told[f"{latency}p50_ms"],
        p99_ms=told[f"{latency}p99_ms"],
        bad=told["bad"],
        resident_mib=after.resident_mib,
        use=cpu_us / 1e6 / told["seconds"],
    )
