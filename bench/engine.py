"""The engine's tokens per second at 1, 8 and 16 streams, beside the bare pipeline's, on one core, in one run.

Both make the same tokens from the same prompts. Rounds are interleaved and medians are told. Two ratios are printed: of tokens per second
as the clock has it, and of tokens per second of CPU time, which other work on the machine does not disturb.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.load import LOAD_CORE, OUT, TARGET_CORE, free_port, pinned
from bench.process_tree import spent

STARTER = Path("examples/support_bot/models/support-bot-v1.1.0/openvino-int8")
STREAMS = (1, 8, 16)
TOKENS = 192
PROMPT_TOKENS = 48


def prompt(stream: int, size: int) -> list[int]:
    """Token ids that no other stream has."""
    return [64 + (stream * 37 + place * 11) % (size - 64) for place in range(PROMPT_TOKENS)]


# -- the bare pipeline ------------------------------------------------------------------------------------------------


def bare(directory: Path) -> None:
    """Reads numbers of streams from stdin; answers each with tokens, seconds and CPU seconds."""
    import numpy as np
    import openvino as ov
    import openvino_genai

    from penstock.core.settings import EngineSettings
    from penstock.engine.folder import read_folder
    from penstock.engine.worker import properties

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_seqs = 16
    scheduler.num_kv_blocks = read_folder(directory).kv_blocks(EngineSettings().kv_cache_mb)
    pipeline = openvino_genai.ContinuousBatchingPipeline(
        str(directory), scheduler, "CPU", properties(1), {"INFERENCE_NUM_THREADS": 1}
    )
    size = len(pipeline.get_tokenizer().get_vocab())
    print("ready", flush=True)
    for line in sys.stdin:
        config = openvino_genai.GenerationConfig(max_new_tokens=TOKENS, ignore_eos=True)
        begun, cpu = time.perf_counter(), time.process_time()
        handles = [
            pipeline.add_request(stream, ov.Tensor(np.array([prompt(stream, size)], np.int64)), config)
            for stream in range(int(line))
        ]
        while pipeline.has_non_finished_requests():
            pipeline.step()
        seconds, used = time.perf_counter() - begun, time.process_time() - cpu
        tokens = sum(len(output.generated_ids) for handle in handles for output in handle.read_all())
        print(json.dumps([tokens, seconds, used]), flush=True)


class Bare:
    """The bare pipeline in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith(("ready", "[")):
                return line
        raise RuntimeError("the bare pipeline ended")

    def measure(self, streams: int) -> tuple[float, float]:
        """Tokens per second, and per second of CPU time."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{streams}\n")
        self._process.stdin.flush()
        tokens, seconds, used = json.loads(self._answer())
        return tokens / seconds, tokens / used


@contextmanager
def bare_pipeline(directory: Path) -> Iterator[Bare]:
    """The bare pipeline, loaded, on the core that is measured."""
    command = [
        "taskset",
        "-c",
        str(TARGET_CORE),
        sys.executable,
        "-m",
        "bench.engine",
        "--bare",
        "--model",
        str(directory),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Bare(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


# -- the server -------------------------------------------------------------------------------------------------------


def serve(directory: Path, port: int) -> None:
    """Runs the engine as its command does."""
    import uvloop

    from penstock.core.settings import EngineSettings
    from penstock.engine.serve import serve_engine

    uvloop.run(serve_engine(directory=directory, model="m", settings=EngineSettings(port=port, threads=1)))


class Served:
    """The engine's server, and clients that stream from it."""

    def __init__(self, port: int, pid: int, size: int) -> None:
        self._port = port
        self._pid = pid
        self._size = size

    def measure(self, streams: int) -> tuple[float, float]:
        """Tokens per second, and per second of CPU time."""
        before, begun = spent(self._pid).cpu_us, time.perf_counter()
        asyncio.run(self._all(streams))
        seconds = time.perf_counter() - begun
        used = (spent(self._pid).cpu_us - before) / 1e6
        return streams * TOKENS / seconds, streams * TOKENS / used

    async def _all(self, streams: int) -> None:
        await asyncio.gather(*(self._stream(stream) for stream in range(streams)))

    async def _stream(self, stream: int) -> None:
        fields = {"max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "stream": True}
        body = json.dumps({"model": "m", "prompt": prompt(stream, self._size), **fields}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = b"POST /v1/completions HTTP/1.1\r\nhost: bench\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        tail = b""
        while piece := await reader.read(262144):
            tail = (tail + piece)[-64:]
        writer.close()
        if b"[DONE]" not in tail:
            raise RuntimeError(f"a stream ended without [DONE]: {tail!r}")


@contextmanager
def server(directory: Path) -> Iterator[Served]:
    """The engine's server, ready, on the core that is measured."""
    port = free_port()
    config = json.loads((directory / "config.json").read_text())
    command = [sys.executable, "-m", "bench.engine", "--serve", str(port), "--model", str(directory)]
    with pinned(command, TARGET_CORE, log=OUT / "engine.log") as process:
        end = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                    break
            except OSError:
                if time.monotonic() > end or process.poll() is not None:
                    raise RuntimeError(f"the engine did not start; see {OUT / 'engine.log'}") from None
                time.sleep(0.1)
        yield Served(port, process.pid, int(config["vocab_size"]))


# -- both -------------------------------------------------------------------------------------------------------------


def measure(directory: Path, rounds: int) -> list[dict[str, Any]]:
    """One row for each number of streams."""
    os.sched_setaffinity(0, {LOAD_CORE})
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with bare_pipeline(directory) as alone, server(directory) as served:
        for streams in STREAMS:
            alone.measure(streams), served.measure(streams)
        for turn in range(rounds):
            for streams in STREAMS:
                for name, subject in (("bare", alone), ("server", served))[:: 1 if turn % 2 else -1]:
                    found.setdefault((name, streams), []).append(subject.measure(streams))
    rows = []
    for streams in STREAMS:
        bare_clock, bare_cpu = (statistics.median(column) for column in zip(*found["bare", streams], strict=True))
        clock, cpu = (statistics.median(column) for column in zip(*found["server", streams], strict=True))
        rows.append(
            {
                "streams": streams,
                "bare_tokens_per_s": round(bare_clock, 1),
                "server_tokens_per_s": round(clock, 1),
                "ratio": round(clock / bare_clock, 3),
                "bare_tokens_per_cpu_s": round(bare_cpu, 1),
                "server_tokens_per_cpu_s": round(cpu, 1),
                "ratio_cpu": round(cpu / bare_cpu, 3),
            }
        )
    return rows


def measure_starter(rounds: int = 5) -> list[dict[str, Any]]:
    """The rows of the model that comes with the project; none if it is not there."""
    return measure(STARTER, rounds) if STARTER.is_dir() else []


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as lines for people."""
    lines = [f"{'streams':>8} {'bare tokens/s':>14} {'server tokens/s':>16} {'ratio':>7} {'ratio by CPU':>13}"]
    for row in rows:
        lines.append(
            f"{row['streams']:8} {row['bare_tokens_per_s']:14.0f} {row['server_tokens_per_s']:16.0f}"
            f" {row['ratio']:7.2f} {row['ratio_cpu']:13.2f}"
        )
    return lines if rows else []


def main() -> None:
    """Prints the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=STARTER)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        bare(options.model)
    elif options.serve:
        serve(options.model, options.serve)
    else:
        print(json.dumps(measure(options.model, options.rounds), indent=1))


if __name__ == "__main__":
    main()
