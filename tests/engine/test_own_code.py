"""A version's own code in its sealed process: what it can do, what it cannot, and that it dies with its engine."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from penstock.core.errors import Damaged, PenstockError, RateLimited, UpstreamFailed
from penstock.engine.code_child import MODULES
from penstock.engine.own_code import OwnCode
from penstock.engine.stats import Stats
from penstock.registry.processing import Python
from tests.engine.conftest import until

SOURCE = """
import json, os, re, socket

seen = []

def shout(text):
    seen.append(text)
    return text.upper() + "!" * len(seen)

def order(text):
    return ",".join({"b", "a", "c", text})

def told(text):
    return json.dumps(sorted(__import__("sys").modules))

def refuses(text):
    raise ValueError("no orders in " + text)

def dials(text):
    return str(socket.create_connection(("127.0.0.1", int(text)), 1))

def makes_socket(text):
    return str(socket.socket(socket.AF_UNIX))

def reads(text):
    return open(text).read()

def lists(text):
    return str(os.listdir(text))

def writes(text):
    open(text, "w").write("here")
    return "written"

def forks(text):
    while True:
        os.fork()

def threads(text):
    import threading
    threading.Thread(target=print).start()

def runs(text):
    os.execv("/bin/true", ["true"])

def kills(text):
    os.kill(os.getppid(), 9)

def calls_the_kernel(text):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(int(text), 2, 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return "done"

def spins(text):
    while True:
        pass

def sleeps(text):
    import time
    time.sleep(60)

def grows(text):
    return "x" * (1 << 31)

def leaves(text):
    os._exit(0)

def crashes(text):
    import ctypes
    ctypes.string_at(0)

def babbles(text):
    os.write(0, b"x" * 100)
    os._exit(0)

def gives_a_number(text):
    return 7

def gives_half_a_character(text):
    return "\\ud800"

def gives_too_much(text):
    return "x" * (9 << 20)

def environment(text):
    return json.dumps([dict(os.environ), os.getcwd() if text else "", os.getuid() if text else 0])

class Wordless(Exception):
    def __str__(self):
        raise RuntimeError

def fails_without_words(text):
    raise Wordless

def prints(text):
    print(text)
    return "quiet"
"""


@asynccontextmanager
async def own_code(source: str = SOURCE, *functions: str, **more: int) -> AsyncIterator[OwnCode]:
    code = OwnCode(source, Stats(), **{"max_waiting": 50, **more})
    try:
        await code.start(tuple(Python(function=name) for name in functions or ("shout",)))
        yield code
    finally:
        await code.stop()


async def called(code: OwnCode, function: str, text: str = "", seconds: float = 5.0) -> str:
    return await code.call(Python(function=function, seconds=seconds), text)


async def test_texts_go_in_and_out_and_nothing_is_kept_between_calls() -> None:
    async with own_code() as code:
        assert [await called(code, "shout", text) for text in ("a", "b", "é🙂")] == ["A!", "B!", "É🙂!"]
        many = await asyncio.gather(*(called(code, "shout", f"t{i}") for i in range(20)))
        assert many == [f"T{i}!" for i in range(20)]
        assert await called(code, "shout", "x" * 3_000_000) == "X" * 3_000_000 + "!"
        assert await called(code, "prints", "hello") == "quiet"
        listed = await called(code, "told")
        assert all(f'"{name}"' in listed for name in MODULES)
        assert "penstock" not in listed


async def test_the_same_code_gives_the_same_answer_in_every_process() -> None:
    answers = set()
    for _ in range(3):
        async with own_code() as code:
            answers.add(await called(code, "order", "d"))
    assert len(answers) == 1


# What it tries, how it ends: the words of the error, and whether the code raised or its process was ended.
ATTACKS = {
    "a connection": ("dials", "9", "Operation not permitted", "processing_failed"),
    "a local socket": ("makes_socket", "", "Operation not permitted", "processing_failed"),
    "a file": ("reads", "/etc/hostname", "Operation not permitted", "processing_failed"),
    "a folder": ("lists", "/", "Operation not permitted", "processing_failed"),
    "a file to write": ("writes", "/tmp/penstock-was-here", "Operation not permitted", "processing_failed"),
    "a swarm of processes": ("forks", "", "Operation not permitted", "processing_failed"),
    "a thread": ("threads", "", "can't start new thread", "processing_failed"),
    "a program": ("runs", "", "Operation not permitted", "processing_failed"),
    "a signal": ("kills", "", "Operation not permitted", "processing_failed"),
    "a processor": ("spins", "", "took longer than 0.4 s", "processing_killed"),
    "time": ("sleeps", "", "took longer than 0.4 s", "processing_killed"),
    "memory": ("grows", "", "MemoryError", "processing_failed"),
    "an end": ("leaves", "", "its process died", "processing_killed"),
    "a crash": ("crashes", "", "its process died by signal 11", "processing_killed"),
    "noise": ("babbles", "", "its process died", "processing_killed"),
    "a number": ("gives_a_number", "", "gives int, not str", "processing_failed"),
    "half a character": ("gives_half_a_character", "", "no Unicode text", "processing_failed"),
    "too much": ("gives_too_much", "", "too long", "processing_failed"),
    "an error": ("refuses", "this text", "ValueError: no orders in this text (line 17)", "processing_failed"),
    "an error without words": ("fails_without_words", "", "Wordless (line", "processing_failed"),
}


async def test_what_it_may_not_is_refused_by_the_kernel_and_told(tmp_path: Path) -> None:
    secret = tmp_path / "penstock.db"
    secret.write_text("everybody's texts")
    secret.chmod(0o644)
    async with own_code() as code:
        attacks = {**ATTACKS, "the data folder": ("reads", str(secret), "Operation not permitted", "processing_failed")}
        for name, (function, text, words, kind) in attacks.items():
            with pytest.raises(UpstreamFailed) as failed:
                await called(code, function, text, 0.4 if "0.4" in words else 5.0)
            assert failed.value.code == kind, name
            assert words in failed.value.message, name
            assert failed.value.message.startswith(f"The version's processing.py: {function}: "), name
            assert "everybody" not in failed.value.message
        assert await called(code, "shout", "still") == "STILL!", "what one call does harms no other"
    assert not Path("/tmp/penstock-was-here").exists()


async def test_the_kernel_refuses_also_what_goes_past_python() -> None:
    """By number: socket, clone, execve, ptrace, io_uring_setup, openat2, memfd_create and what belongs to the other table of x86-64."""
    numbers = [41, 56, 57, 59, 101, 425, 437, 319, 16, 62, 157, 272, 317]
    async with own_code() as code:
        for number in numbers if os.uname().machine == "x86_64" else [198, 220, 221, 117, 425, 437, 279, 29, 129, 167]:
            with pytest.raises(UpstreamFailed, match="refused"):
                await called(code, "calls_the_kernel", str(number))
        if os.uname().machine == "x86_64":
            with pytest.raises(UpstreamFailed, match="by signal 31"):
                await called(code, "calls_the_kernel", str(0x40000000 + 41))


async def test_rights_files_and_environment_are_gone() -> None:
    async with own_code() as code:
        assert await called(code, "environment") == '[{}, "", 0]'
        status = Path(f"/proc/{server_of(code)}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        if os.geteuid() == 0:
            assert "Uid:\t65534\t65534\t65534\t65534" in status
            assert "CapEff:\t0000000000000000" in status
        process = Path(f"/proc/{server_of(code)}")
        opened = [str(one.readlink()) for one in (process / "fd").iterdir()]
        assert len(opened) <= 4
        assert sum(name.startswith("socket") for name in opened) == 1
        assert "deleted" in str((process / "cwd").readlink())


def server_of(code: OwnCode) -> int:
    assert code._server is not None
    assert code._server._process is not None
    return code._server._process.pid


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_a_server_that_dies_fails_its_calls_and_is_replaced() -> None:
    async with own_code() as code:
        slow = asyncio.create_task(called(code, "sleeps", "", 9.0))
        first = server_of(code)
        await asyncio.to_thread(until, lambda: children(first), "the call runs")
        running = children(first)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(UpstreamFailed, match="its process died"):
            await slow
        await asyncio.to_thread(until, lambda: all(gone(pid) for pid in running), "the call died with its server")
        assert await called(code, "shout", "again") == "AGAIN!"
        assert server_of(code) != first


def children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


async def test_what_waits_is_bounded_and_what_is_cancelled_gives_its_place_back() -> None:
    async with own_code(together=1, max_waiting=2) as code:
        slow = [asyncio.create_task(called(code, "sleeps", "", 1.0)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimited, match="Too many texts"):
            await called(code, "shout")
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert await called(code, "shout", "x") == "X!"
        assert code._stats.code_calls == {"done": 1, "raised": 0, "killed": 0, "abort": 2}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def other(text): return text", "it has no function 'shout'"),
        ("shout = 3", "it has no function 'shout'"),
        ("def shout(text) return text", "SyntaxError"),
        ("import sqlite3", "ModuleNotFoundError: No module named 'sqlite3' (line 1)"),
        ("open('/etc/passwd')", "PermissionError"),
        ("while True: pass", "took longer than 1 s"),
        ("(" * 5000, "died|SyntaxError|MemoryError|RecursionError"),
    ],
)
async def test_code_that_cannot_be_read_is_told_when_it_is_loaded(
    source: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.engine.own_code._LOAD_S", 1.0)
    with pytest.raises(Damaged) as refused:
        async with own_code(source):
            pass
    assert any(word in refused.value.message for word in words.split("|")), refused.value.message


_ENGINE = """
import asyncio, sys
from tests.engine.test_own_code import called, own_code, server_of

async def main():
    async with own_code() as code:
        call = asyncio.create_task(called(code, "sleeps", "", 9.0))
        print(server_of(code), flush=True)
        await call

asyncio.run(main())
"""


def test_it_does_not_outlive_its_engine() -> None:
    with subprocess.Popen([sys.executable, "-c", _ENGINE], stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        server = int(engine.stdout.readline())
        until(lambda: children(server), "the call runs")
        family = [server, *children(server)]
        engine.kill()
        engine.wait()
    until(lambda: all(gone(pid) for pid in family), "server and call are gone")


async def test_a_machine_without_seals_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A kernel that takes no filter: the child is told of none for its machine."""
    from penstock.engine import own_code as module

    text = module._CHILD.read_text().replace('"x86_64": (', '"other": (').replace('"aarch64": (', '"none": (')
    (tmp_path / "child.py").write_text(text)
    monkeypatch.setattr(module, "_CHILD", tmp_path / "child.py")
    with pytest.raises(Damaged) as refused:
        async with own_code():
            pass
    assert refused.value.code == "no_seal"
    (tmp_path / "child.py").write_text(
        Path(module.__file__).with_name("code_child.py").read_text().replace("    seal.close()\n", "    pass\n")
    )
    with pytest.raises(Damaged, match="the seal does not hold here"):
        async with own_code():
            pass


def test_time_limits_are_kept_by_the_clock() -> None:
    async def timed() -> float:
        async with own_code() as code:
            begun = time.monotonic()
            with pytest.raises(PenstockError):
                await called(code, "spins", "", 0.2)
            return time.monotonic() - begun

    assert asyncio.run(timed()) < 30.0  # it spins for ever
