"""What keeping content costs a request in the worker: gathering, masking, encrypting; the parts, and the difference on the whole.

`python -m bench.content` prints CPU microseconds. Texts have 1 KB together; a subject is known unless it says otherwise.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import msgspec
import uvloop

from bench.load import HERE
from bench.steps import ANSWER, EVENTS, Bench, snapshot
from penstock.core.snapshot import Policy
from penstock.guard.masking import Masker
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.masterkey import Wrapping
from penstock.journal.sealing import SubjectKey
from penstock.journal.vault import Vault

_WORDS = "Hello, I ordered a lamp on 12 May 2026, order TC-482133, for 49.90 EUR and it has not come. Could you look where it is? "
CLEAN = [(_WORDS * 5)[:512], (_WORDS * 5)[60:572]]
ONE = [CLEAN[0][:480] + " Write to jane.doe@example.com.", CLEAN[1]]
ALL = [CLEAN[0][:460] + " jane.doe@example.com, +49 170 1234567, 4111 1111 1111 1111", CLEAN[1]]


def us(call: Callable[[], object], number: int = 5000, rounds: int = 7) -> float:
    """CPU microseconds of one call: the median of some rounds."""
    found = []
    for _ in range(rounds):
        before = time.process_time()
        for _ in range(number):
            call()
        found.append((time.process_time() - before) / number * 1e6)
    return statistics.median(found)


def parts(folder: Path) -> list[tuple[str, float]]:
    """Each part alone."""
    masker = Masker(Policy(name="p").capture_mask)
    key = SubjectKey("ab" * 16, os.urandom(32))
    messages, replies = [("user", CLEAN[0])], [(0, "content", CLEAN[1])]
    keys = FileKeystore.open(folder / "keys", Wrapping(os.urandom(32)))
    vault = Vault(keys)
    number = count()
    return [
        ("mask 1 KB in which nothing is found", us(lambda: masker.mask(CLEAN))),
        ("mask 1 KB with an address", us(lambda: masker.mask(ONE))),
        ("mask 1 KB with an address, a phone number, a card", us(lambda: masker.mask(ALL), 1000)),
        ("encrypt 1 KB", us(lambda: key.seal("acme", "req_1", messages, replies))),
        (
            "encrypt 1 KB, its subject's key looked up",
            us(lambda: vault.seal("acme", "user/1", "req_1", messages, replies)),
        ),
        ("make the key of a new subject", us(lambda: keys.key_of("acme", f"user/new{next(number)}"), 300, 5)),
    ]


def _body(stream: bool) -> bytes:
    """A question that has 1 KB together with the bench's answer."""
    asked = json.loads((HERE / ("body1k_stream.json" if stream else "body1k.json")).read_bytes())
    answer = len(json.loads(ANSWER.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"])
    room = 1024 - answer - sum(len(one["content"]) for one in asked["messages"][:-1])
    asked["messages"][-1]["content"] = asked["messages"][-1]["content"][:room]
    return json.dumps(asked).encode()


async def whole(folder: Path, requests: int, rounds: int) -> dict[str, float]:
    """CPU microseconds of a request, or of an event of a stream, with and without: medians of interleaved rounds."""
    benches: dict[str, Bench] = {}
    for name, capture in (("none", "none"), ("masked", "masked"), ("full", "full")):
        for stream in (False, True):
            policy = msgspec.convert({"name": "default", "capture": capture}, Policy)
            made = msgspec.structs.replace(snapshot(cache=False), policies=(policy,))
            body = _body(stream)
            data = folder / f"{name}-{stream}"
            data.mkdir()
            bench = benches[f"{name}{' stream' if stream else ''}"] = Bench(made, data, body=body, stream=stream)
            bench.gateway.vault = Vault(FileKeystore.open(data / "keys", Wrapping(bytes(32))))
            await bench.start()
            await bench.run(64)
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    found: dict[str, list[float]] = {name: [] for name in benches}
    for _ in range(rounds):
        for name, bench in benches.items():
            number = max(64, requests // 40) if bench.stream else requests
            found[name].append(await bench.run(number) / (EVENTS if bench.stream else 1))
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    for bench in benches.values():
        await bench.client.close()
        await bench.server.drain(0)
    return {name: statistics.median(each) for name, each in found.items()}


def rows(requests: int, rounds: int) -> list[tuple[str, float]]:
    """What is printed."""
    with tempfile.TemporaryDirectory() as folder:
        told = parts(Path(folder))
        all_of_it = uvloop.run(whole(Path(folder), requests, rounds))
    return [
        *told,
        ("a request without content", all_of_it["none"]),
        ("  masked and kept, more", all_of_it["masked"] - all_of_it["none"]),
        ("  kept in full, more", all_of_it["full"] - all_of_it["none"]),
        ("an event of a stream without content", all_of_it["none stream"]),
        ("  masked and kept, more", all_of_it["masked stream"] - all_of_it["none stream"]),
    ]


def main() -> int:
    """Prints the table, or JSON with `--json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    table = rows(options.requests, options.rounds)
    if options.json:
        print(json.dumps(table))
        return 0
    for name, value in table:
        print(f"{name:52} {value:8.2f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
