"""The registry's storage, measured: what versions of one model take together, and how fast they come and go.

From one base (BF16, weights of standard deviation .02) come: two layers retrained, a LoRA merged, the tensors in another order, a grown vocabulary, other
shards, int8, a full fine-tune with steps of 1e-4, and another from there. Each is pushed to a control process of its own over loopback HTTP by the command
that people use. Speeds are ratios to `cp` of the same file in the same run: medians of rounds, each with new bytes.

`python -m bench.registry [--megabytes 1500] [--rounds 5] [--folder DIR] [--json FILE]`
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from penstock.cli.client import Api
from penstock.cli.main import cli
from penstock.registry.blocks import BLOCK

STD = 0.02
STEP = 1e-4
_MEASURED = ("cp_fsync", "cp", "socket_fsync", "push", "again", "reread", "pull", "load")
Tensors = dict[str, np.ndarray]  # BF16 as unsigned 16-bit numbers


def to_bf16(values: np.ndarray) -> np.ndarray:
    """Rounded to the nearest."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def to_float(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.uint32) << 16).view(np.float32)


def make_base(megabytes: int, random: np.random.Generator) -> Tensors:
    """A decoder's tensors, about so large together."""
    layers = 12
    share = megabytes * 1_000_000 / 2 / (layers * 12.3 + 16)
    side = max(16, int(share**0.5) // 16 * 16)

    def normal(*shape: int) -> np.ndarray:
        return to_bf16(random.standard_normal(shape, np.float32) * STD)

    tensors = {"embed_tokens.weight": normal(16 * side, side)}
    for layer in range(layers):
        name = f"layers.{layer}"
        for part in ("q", "k", "v", "o"):
            tensors[f"{name}.attention.{part}.weight"] = normal(side, side)
        for part, shape in (
            ("gate", (side * 11 // 4, side)),
            ("up", (side * 11 // 4, side)),
            ("down", (side, side * 11 // 4)),
        ):
            tensors[f"{name}.mlp.{part}.weight"] = normal(*shape)
        tensors[f"{name}.norm.weight"] = normal(side)
    return tensors


def retrained(base: Tensors, random: np.random.Generator) -> Tensors:
    names = ("layers.4.", "layers.7.")
    return {
        name: to_bf16(random.standard_normal(values.shape, np.float32) * STD) if name.startswith(names) else values
        for name, values in base.items()
    }


def lora_merged(base: Tensors, random: np.random.Generator) -> Tensors:
    """A rank of 8 on the queries and values of every layer."""

    def merge(values: np.ndarray) -> np.ndarray:
        up = random.standard_normal((values.shape[0], 8), np.float32)
        down = random.standard_normal((8, values.shape[1]), np.float32)
        return to_bf16(to_float(values) + up @ down * (STEP / 8**0.5))

    return {name: merge(v) if ".q." in name or ".v." in name else v for name, v in base.items()}


def grown(base: Tensors, random: np.random.Generator) -> Tensors:
    table = base["embed_tokens.weight"]
    more = to_bf16(random.standard_normal((64, table.shape[1]), np.float32) * STD)
    return {**base, "embed_tokens.weight": np.concatenate((table, more))}


def tuned(base: Tensors, random: np.random.Generator) -> Tensors:
    return {name: to_bf16(to_float(v) + random.standard_normal(v.shape, np.float32) * STEP) for name, v in base.items()}


def quantised(base: Tensors) -> Tensors:
    found: Tensors = {}
    for name, values in base.items():
        numbers = to_float(values)
        scale = np.abs(numbers).max(axis=-1, keepdims=True) / 127
        found[name] = np.round(numbers / scale).astype(np.int8)
        found[f"{name}_scale"] = to_bf16(scale)
    return found


def write(tensors: Tensors, path: Path) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, values in tensors.items():
        dtype = "I8" if values.dtype == np.int8 else "BF16"
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            file.write(np.ascontiguousarray(values).data)


def shards(tensors: Tensors, count: int) -> list[Tensors]:
    names = list(tensors)
    each = -(-len(names) // count)
    return [{name: tensors[name] for name in names[i : i + each]} for i in range(0, len(names), each)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class House:
    """A control process of its own, and the commands that ask it."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "penstock.cli",
                "control",
                "--data",
                str(self.data),
                "--control-port",
                str(port),
                "--empty",
            ],
            stdout=(folder / "control.log").open("w"),
            stderr=subprocess.STDOUT,
        )
        end = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                if answer.status == 200:
                    break
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((folder / "control.log").read_text()[-2000:])
            time.sleep(0.1)
        self.api = Api(self.url, (self.data / "admin.key").read_text().strip(), patience_s=600)

    def call(self, *words: str) -> dict[str, Any]:
        """What a command prints as JSON."""
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            cli.main([*words, "--url", self.url, "--data", str(self.data), "--json"], standalone_mode=False)
        found: dict[str, Any] = json.loads(told.getvalue())
        return found

    def settle(self) -> dict[str, Any]:
        """Wait for deltas, sweep; how much is stored."""
        while self.api.get("/storage")["waiting"]:
            time.sleep(0.5)
        for _ in range(2):
            self.api.send("POST", "/storage/gc", {"grace_s": 0})
        found: dict[str, Any] = self.api.get("/storage")
        return found

    def stop(self) -> None:
        self.api.__exit__()
        self._process.terminate()
        self._process.wait(60)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[House]:
    house = House(folder)
    try:
        yield house
    finally:
        house.stop()


def dedupe(house: House, folder: Path, megabytes: int) -> dict[str, Any]:
    """Push the versions one after the other; what each moved, and what all take."""
    random = np.random.default_rng(6)
    base = make_base(megabytes, random)
    first = tuned(base, random)
    steps: list[tuple[str, list[Tensors], str | None]] = [
        ("base", [base], None),
        ("two layers retrained", [retrained(base, random)], None),
        ("LoRA merged", [lora_merged(base, random)], None),
        ("tensors reordered", [dict(reversed(base.items()))], None),
        ("vocabulary grown", [grown(base, random)], None),
        ("resharded", shards(base, 4), None),
        ("int8", [quantised(base)], "m:v1.0.0"),
        ("full fine-tune", [first], "m:v1.0.0"),
        ("full fine-tune again", [tuned(first, random)], "m:v1.7.0"),
    ]
    rows = []
    sent: set[tuple[str, bytes]] = set()
    for number, (name, files, made_from) in enumerate(steps):
        source = folder / "source"
        source.mkdir()
        for index, tensors in enumerate(files):
            write(tensors, source / f"model-{index}.safetensors")
        logical = sum(path.stat().st_size for path in source.iterdir())
        differs = sum(values.nbytes for part in files for values in part.values() if _new(values, sent))
        base_of = ("--base", made_from) if made_from else ()
        moved = house.call("models", "push", str(source), f"m:v1.{number}.0", *base_of)["sent"]
        rows.append({"version": name, "logical": logical, "differs": differs, "moved": moved})
        shutil.rmtree(source)
    pulled = folder / "pulled"
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    for number, row in enumerate(rows):
        row["pulled"] = house.call("models", "pull", f"m:v1.{number}.0", str(pulled / str(number)))["fetched"]
        if number:
            shutil.rmtree(pulled / str(number))
    del base, first, steps
    stored = house.settle()
    house.call("models", "fsck")
    shutil.rmtree(pulled)
    return {"versions": rows, **{key: stored[key] for key in ("logical", "stored", "deltas", "blocks")}}


def _new(values: np.ndarray, sent: set[tuple[str, bytes]]) -> bool:
    from blake3 import blake3

    key = (
        f"{values.dtype} {values.shape}",
        blake3(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data).digest(),
    )
    new = key not in sent
    sent.add(key)
    return new


def speeds(house: House, folder: Path, megabytes: int, rounds: int) -> dict[str, Any]:
    """Medians of seconds: `cp`, `cp` and fsync, the file through a socket and fsync, a push of new bytes, of the same again, a pull.

    `again` is what a user sees, `reread` the same where nothing is remembered of the file; `pull` returns when the file is on the disk.
    """
    source = folder / "speed"
    source.mkdir()
    file = source / "weights.bin"
    copy, target = folder / "copy", folder / "fetched"
    piece = np.random.default_rng(1).bytes(BLOCK)
    with file.open("wb") as opened:
        for _ in range(megabytes * 1_000_000 // BLOCK):
            opened.write(piece)
    found: dict[str, list[float]] = {key: [] for key in _MEASURED}
    for number in range(rounds):
        with file.open("r+b") as opened:  # every block is another than in the rounds before
            for at in range(0, file.stat().st_size, BLOCK):
                opened.seek(at)
                opened.write(os.urandom(16))
            os.fsync(opened.fileno())
        label = f"s:run{3 * number + 1}"
        again, reread = f"s:run{3 * number + 2}", f"s:run{3 * number + 3}"
        pull = ("models", "pull", label, str(target))
        os.environ["XDG_CACHE_HOME"] = str(folder / f"cache{number}")
        for key, work in (
            ("cp_fsync", lambda: _copy(file, copy, flush=True)),
            ("cp", lambda: _copy(file, copy, flush=False)),
            ("socket_fsync", lambda: _through_a_socket(file, copy)),
            ("push", lambda label=label: house.call("models", "push", str(source), label)),
            ("again", lambda label=again: house.call("models", "push", str(source), label)),
            ("reread", lambda label=reread: house.call("models", "push", str(source), label, "--reread")),
            ("pull", lambda pull=pull: house.call(*pull)),
        ):
            _level(folder, file)
            found[key].append(_timed(work))
            copy.unlink(missing_ok=True)
        found["load"].append(os.getloadavg()[0])
        shutil.rmtree(target)
        for reference in (label, again, reread):
            path = f"/models/s/versions/{reference.removeprefix('s:')}/state"
            house.api.send("POST", path, {"state": "deleted", "reason": "measured"})
        house.api.send("POST", "/storage/gc", {"grace_s": 0})
    shutil.rmtree(source)
    return {key: statistics.median(values) for key, values in found.items()} | {"bytes": megabytes * 1_000_000}


def _through_a_socket(source: Path, target: Path) -> None:
    """What a push cannot be quicker than here: one process sends the file over loopback, another writes it and flushes; nothing is checked."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        child = os.fork()
        if not child:
            try:
                _receive(listening, target)
            finally:
                os._exit(0)
        with socket.create_connection(listening.getsockname()) as line, source.open("rb") as file:
            line.sendfile(file)
        os.waitpid(child, 0)
    if target.stat().st_size != source.stat().st_size:
        raise RuntimeError("the file did not arrive whole")


def _receive(listening: socket.socket, target: Path) -> None:
    line, _ = listening.accept()
    buffer = memoryview(bytearray(1 << 20))
    with target.open("wb", buffering=0) as file:
        while count := line.recv_into(buffer):
            file.write(buffer[:count])
        os.fsync(file.fileno())


def _level(folder: Path, file: Path) -> None:
    """Leave as many pages free that were written a moment ago, for each measurement alike: a virtual machine's first touch of a page is ten times as slow."""
    scratch = folder / "scratch"
    _copy(file, scratch, flush=True)
    scratch.unlink()
    os.sync()


def _timed(work: Any) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _copy(source: Path, target: Path, *, flush: bool) -> None:
    subprocess.run(["cp", str(source), str(target)], check=True)
    if flush:
        subprocess.run(["sync", str(target)], check=True)


def measure(folder: Path, megabytes: int, rounds: int) -> dict[str, Any]:
    """Everything."""
    with running(folder) as house:
        small = dedupe(house, folder, megabytes)
        fast = speeds(house, folder, megabytes, rounds)
    return {"dedupe": small, "speed": fast, **ratios(small, fast)}


def ratios(small: dict[str, Any], fast: dict[str, Any]) -> dict[str, float]:
    """What the targets speak of."""
    neighbours = [row for row in small["versions"][1:] if row["differs"] > 4 * BLOCK]
    return {
        "stored_share": small["stored"] / small["logical"],
        "moved_share": max((row["moved"] / row["differs"] for row in neighbours), default=0.0),
        "pulled_share": max((row["pulled"] / row["differs"] for row in neighbours), default=0.0),
        "ingest": fast["cp_fsync"] / fast["push"],
        "socket_to_cp_fsync": fast["cp_fsync"] / fast["socket_fsync"],
        "duplicate_to_cp": fast["cp"] / fast["again"],
        "reread_to_cp": fast["cp"] / fast["reread"],
        "pull_to_cp_fsync": fast["cp_fsync"] / fast["pull"],
        "pull_to_cp": fast["cp"] / fast["pull"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work; 8 times the base must fit")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=asked.folder) as folder:
        found = measure(Path(folder), asked.megabytes, asked.rounds)
    for row in found["dedupe"]["versions"]:
        print(
            "{version:22} {logical:>13,} B, differs {differs:>13,}, moved {moved:>13,}, pulled {pulled:>13,}".format(
                **row
            )
        )
    for key, value in found["speed"].items():
        print(f"{key:22} {value:.3f}")
    targets = {
        "stored_share": "<= 0.35",
        "moved_share": "<= 1.15",
        "pulled_share": "<= 1.15",
        "ingest": ">= 0.8",
        "duplicate_to_cp": ">= 2",
        "pull_to_cp": ">= 0.7",
    }
    for key in ratios(found["dedupe"], found["speed"]):
        print(f"{key:22} {found[key]:.3f}  {targets.get(key, '')}")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
