"""What TLS costs: CPU of a JSON request, of an event of a stream and of a handshake, and memory of a connection that rests, beside plain HTTP.

`python -m bench.tls [--rounds N] [--seconds S]`: both gateways run at the same time, the rounds are interleaved, medians are told.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop

from bench.clients import BODY, STREAM_BODY, Caller, chat, connect, connect_many, pin, resident_kib
from bench.line import Line
from bench.load import LOAD_CORE, OUT, upstream
from bench.process_tree import spent
from bench.targets import Running, penstock
from tests.gateway.house import KEY, running

_RESTING = 1000
_LINE_KEY = "ECDSA P-256"
_KEYS = {"ECDSA P-256": ("ec", "ec_paramgen_curve:prime256v1"), "RSA 2048": ("rsa", "rsa_keygen_bits:2048")}


def certificate(name: str, folder: Path = OUT / "tls") -> tuple[Path, Path]:
    """A self-signed certificate with a key of the kind `name`, and the key."""
    kind, option = _KEYS[name]
    folder.mkdir(parents=True, exist_ok=True)
    cert, key = folder / f"{kind}-cert.pem", folder / f"{kind}-key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", kind, "-pkeyopt", option, "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert.resolve(), key.resolve()


class Side:
    """One of the gateways that are compared."""

    def __init__(self, name: str, target: Running, context: ssl.SSLContext | None) -> None:
        self.name = name
        self.target = target
        self.context = context
        self.figures: dict[str, list[float]] = {}

    def note(self, what: str, value: float) -> None:
        self.figures.setdefault(what, []).append(value)

    def median(self, what: str) -> float | None:
        values = self.figures.get(what)
        return statistics.median(values) if values else None


async def _load(side: Side, seconds: float, body: bytes, mark: bytes, connections: int) -> float:
    """CPU microseconds of one `mark` in the replies."""
    request = chat(side.target.headers, body)
    callers = await connect_many(side.target.port, connections, side.context)
    await asyncio.gather(*[caller.ask(request) for caller in callers])
    end = time.monotonic() + seconds
    count = 0

    async def go(caller: Caller) -> None:
        nonlocal count
        while True:
            reply = await caller.ask(request)
            count += reply.count(mark)
            if time.monotonic() >= end:
                return

    before = spent(side.target.pid).cpu_us
    await asyncio.gather(*[go(caller) for caller in callers])
    used = spent(side.target.pid).cpu_us - before
    _close(callers)
    return used / count


async def _handshakes(side: Side, count: int) -> float:
    """CPU microseconds of a connection that is made and closed."""
    before = spent(side.target.pid).cpu_us
    for _ in range(count):
        caller = await connect(side.target.port, side.context)
        _close([caller])
    await asyncio.sleep(0.1)
    return (spent(side.target.pid).cpu_us - before) / count


async def _resting(side: Side, count: int) -> float:
    """KiB of a connection that has had a request and rests."""
    request = chat(side.target.headers)
    before = resident_kib(side.target.pid)
    callers = await connect_many(side.target.port, count, side.context)
    for start in range(0, count, 100):
        await asyncio.gather(*[caller.ask(request) for caller in callers[start : start + 100]])
    await asyncio.sleep(1.0)
    after = resident_kib(side.target.pid)
    _close(callers)
    return (after - before) / count


def _close(callers: list[Caller]) -> None:
    for caller in callers:
        if caller.transport is not None:
            caller.transport.abort()


async def measure(
    sides: list[Side],
    rounds: int,
    seconds: float,
    *,
    connections: int = 32,
    handshakes: int = 300,
    resting: int = _RESTING,
) -> None:
    """Fills the sides' figures; with no `resting` connections memory is not among them."""
    for _ in range(rounds):
        for side in sides:
            side.note("CPU us of a JSON request", await _load(side, seconds, BODY, b"HTTP/1.1 200", connections))
        for side in sides:
            side.note("CPU us of an event of a stream", await _load(side, seconds, STREAM_BODY, b"data: ", connections))
        for side in sides:
            side.note("CPU us of a connection made", await _handshakes(side, handshakes))
    if resting:
        for side in sides:
            side.note("KiB of a connection at rest", await _resting(side, resting))


async def tls_line(_data: Path) -> Line:
    """One round of the table, as a line: plain and sealed gateways beside each other."""
    with _sides((_LINE_KEY,)) as sides:
        await measure(sides, 1, 1.0)
        return _line(*sides)


async def tls_line_inside(data: Path) -> Line:
    """The line's short form: both gateways in this process, so that the client's CPU is counted too, and no memory."""
    cert, key = certificate(_LINE_KEY, data / "keys")
    context = ssl.create_default_context(cafile=str(cert))
    sealing = {"tls_certificate": str(cert), "tls_key": str(key)}
    async with running(data / "plain") as plain, running(data / "sealed", settings=sealing) as sealed:
        targets = [
            Running(port=house.port, pid=os.getpid(), headers=(f"Authorization: Bearer {KEY}",))
            for house in (plain, sealed)
        ]
        sides = [Side("plain", targets[0], None), Side(_LINE_KEY, targets[1], context)]
        await measure(sides, 1, 0.05, connections=2, handshakes=4, resting=0)
        return _line(*sides)


def _line(plain: Side, sealed: Side) -> Line:
    told: list[str] = []
    figures: dict[str, float] = {}
    for at, (what, base) in enumerate(plain.figures.items()):
        value = sealed.figures[what][0]
        told.append(f"{what} {{sealed{at}:.0f}} (plain {{plain{at}:.0f}}, {{times{at}:.2f}} times)")
        figures |= {f"sealed{at}": value, f"plain{at}": base[0], f"times{at}": value / base[0]}
    return Line("; ".join(told), figures)


@contextmanager
def _sides(keys: Sequence[str] = tuple(_KEYS)) -> Iterator[list[Side]]:
    with ExitStack() as stack:
        port = stack.enter_context(upstream(interval_us=1000, events=50))
        sides = [Side("plain", stack.enter_context(penstock(port)), None)]
        for name in keys:
            cert, key = certificate(name)
            flags = ("--tls-certificate", str(cert), "--tls-key", str(key))
            context = ssl.create_default_context(cafile=str(cert))
            sides.append(Side(name, stack.enter_context(penstock(port, *flags)), context))
        yield sides


def table(sides: list[Side], say: Callable[[str], None] = print) -> None:
    """A line for each figure, with its ratio to plain."""
    plain = sides[0]
    say(f"{'':34}" + "".join(f"{side.name:>20}" for side in sides))
    for what in plain.figures:
        cells = []
        for side in sides:
            value, base = side.median(what), plain.median(what)
            ratio = "" if side is plain or not value or not base else f" ({value / base:.2f})"
            cells.append(f"{value:.1f}{ratio}")
        say(f"{what:34}" + "".join(f"{cell:>20}" for cell in cells))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    wanted = parser.parse_args()
    pin(LOAD_CORE)
    with _sides() as sides:
        uvloop.run(measure(sides, wanted.rounds, wanted.seconds))
        table(sides)


if __name__ == "__main__":
    main()
