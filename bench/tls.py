"""What TLS costs: CPU of a JSON request, of an event of a stream and of a handshake, and memory of a connection that rests, beside plain HTTP.

`python -m bench.tls [--rounds N] [--seconds S]`: both gateways run at the same time, the rounds are interleaved, medians are told.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop

from bench.clients import BODY, STREAM_BODY, Caller, chat, connect, connect_many, pin, resident_kib
from bench.load import LOAD_CORE, OUT, upstream
from bench.process_tree import spent
from bench.targets import Running, penstock

_RESTING = 1000
_KEYS = {"ECDSA P-256": ("ec", "ec_paramgen_curve:prime256v1"), "RSA 2048": ("rsa", "rsa_keygen_bits:2048")}


def certificate(name: str) -> tuple[Path, Path]:
    """A self-signed certificate with a key of the kind `name`, and the key."""
    kind, option = _KEYS[name]
    folder = OUT / "tls"
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


async def _load(side: Side, seconds: float, body: bytes, mark: bytes) -> float:
    """CPU microseconds of one `mark` in the replies."""
    request = chat(side.target.headers, body)
    callers = await connect_many(side.target.port, 32, side.context)
    await asyncio.gather(*[caller.ask(request) for caller in callers])
    end = time.monotonic() + seconds
    count = 0

    async def go(caller: Caller) -> None:
        nonlocal count
        while time.monotonic() < end:
            reply = await caller.ask(request)
            count += reply.count(mark)

    before = spent(side.target.pid).cpu_us
    await asyncio.gather(*[go(caller) for caller in callers])
    used = spent(side.target.pid).cpu_us - before
    _close(callers)
    return used / count


async def _handshakes(side: Side, count: int = 300) -> float:
    """CPU microseconds of a connection that is made and closed."""
    before = spent(side.target.pid).cpu_us
    for _ in range(count):
        caller = await connect(side.target.port, side.context)
        _close([caller])
    await asyncio.sleep(0.1)
    return (spent(side.target.pid).cpu_us - before) / count


async def _resting(side: Side) -> float:
    """KiB of a connection that has had a request and rests."""
    request = chat(side.target.headers)
    before = resident_kib(side.target.pid)
    callers = await connect_many(side.target.port, _RESTING, side.context)
    for start in range(0, _RESTING, 100):
        await asyncio.gather(*[caller.ask(request) for caller in callers[start : start + 100]])
    await asyncio.sleep(1.0)
    after = resident_kib(side.target.pid)
    _close(callers)
    return (after - before) / _RESTING


def _close(callers: list[Caller]) -> None:
    for caller in callers:
        if caller.transport is not None:
            caller.transport.abort()


async def measure(sides: list[Side], rounds: int, seconds: float) -> None:
    """Fills the sides' figures."""
    for _ in range(rounds):
        for side in sides:
            side.note("CPU us of a JSON request", await _load(side, seconds, BODY, b"HTTP/1.1 200"))
        for side in sides:
            side.note("CPU us of an event of a stream", await _load(side, seconds, STREAM_BODY, b"data: "))
        for side in sides:
            side.note("CPU us of a connection made", await _handshakes(side))
    for side in sides:
        side.note("KiB of a connection at rest", await _resting(side))


async def tls_line(_data: Path) -> str:
    """One round of the table, as a line: plain and sealed gateways beside each other."""
    with _sides(("ECDSA P-256",)) as sides:
        await measure(sides, 1, 1.0)
        plain, sealed = sides
        told = []
        for what, base in plain.figures.items():
            value = sealed.figures[what][0]
            told.append(f"{what} {value:.0f} (plain {base[0]:.0f}, {value / base[0]:.2f} times)")
    return "; ".join(told)


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
