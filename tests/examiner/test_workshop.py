"""Conversions in processes of their own: steps told, failures said, nothing left running; the environment that is made once."""

import asyncio
import fcntl
import hashlib
import json
import os
from pathlib import Path

import pytest

from penstock.core.errors import Damaged, Unavailable
from penstock.core.jobs import BuildJob
from penstock.engine.folder import read_folder
from penstock.examiner.processes import running
from penstock.examiner.toolchain import ready_toolchain
from penstock.examiner.workshop import make_build
from tests.engine.convert.models import write_llama

pytestmark = pytest.mark.engine


def job(source: Path, target: Path, precision: str = "int8") -> BuildJob:
    return BuildJob(
        id="b",
        model="m",
        label="v1",
        engine="openvino",
        precision=precision,
        source=str(source),
        target=str(target),
        toolchains=str(target.parent / "toolchains"),
    )


class Steps(list[str]):
    async def say(self, step: str) -> None:
        self.append(step)


async def test_a_build_is_written_step_by_step(tmp_path: Path) -> None:
    steps = Steps()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "left").touch()  # of an attempt that was cut off
    made_by = await make_build(job(write_llama(tmp_path / "m", layers=1), tmp_path / "b"), steps.say)
    assert made_by.startswith("penstock ")
    assert steps == ["the tokenizer", "the graph of a llama with matrices in int8", "writing"]
    assert read_folder(tmp_path / "b").context == 256
    assert not (tmp_path / "b" / "left").exists()


async def test_a_converter_that_fails_or_dies_is_told(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "m", layers=1)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(Damaged, match="no safetensors file"):
        await make_build(job(folder, tmp_path / "b"), Steps().say)
    async with running(("/bin/sh", "-c", "kill -9 $$")) as process:
        assert await process.wait() == -9
    with pytest.raises(Unavailable, match="cannot be started"):
        async with running((str(tmp_path / "nothing"),)):
            pass


async def test_what_is_cut_off_ends_with_all_that_it_started(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    with pytest.raises(TimeoutError):
        async with (
            asyncio.timeout(20),
            running(("/bin/sh", "-c", f"sleep 600 & echo $! > {told}; echo on; wait")) as process,
        ):
            assert process.stdout is not None
            await process.stdout.readline()
            raise TimeoutError
    child = int(told.read_text())
    async with asyncio.timeout(20):
        while (
            Path(f"/proc/{child}").exists()
            and "Z" not in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2][:3]
        ):
            await asyncio.sleep(0.01)


async def test_an_environment_that_is_there_is_taken(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# pins\nsome-converter==1.0\n")
    place = tmp_path / "toolchains" / hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    place.mkdir(parents=True)
    (place / "made.json").write_text("{}")
    steps = Steps()
    found = await ready_toolchain(tmp_path / "toolchains", steps.say, requirements)
    assert (found.python, found.name, steps) == (place / "bin" / "python", "some-converter==1.0", [])
    with place.with_suffix(".lock").open("w") as held:  # another process makes it
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="Another process"):
            await ready_toolchain(tmp_path / "toolchains", steps.say, requirements)


@pytest.mark.soak
async def test_an_environment_is_made_once(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# nothing: an environment alone\n")
    steps = Steps()
    first = await ready_toolchain(tmp_path / "toolchains", steps.say, requirements)
    assert os.access(first.python, os.X_OK)
    assert "an environment from requirements.txt" in steps[0]
    assert "ready after" in steps[-1]
    count = len(steps)
    assert await ready_toolchain(tmp_path / "toolchains", steps.say, requirements) == first
    assert len(steps) == count
    requirements.write_text("no-such-package-is-here==0.0.0 --no-such-option\n")
    with pytest.raises(Unavailable, match="pip failed"):
        await ready_toolchain(tmp_path / "toolchains", steps.say, requirements)


@pytest.mark.soak
async def test_another_architecture_goes_through_the_environment(tmp_path: Path) -> None:
    """Needs torch and optimum-intel of the package index: minutes, and gigabytes."""
    folder = write_llama(tmp_path / "m", layers=1, rope_scaling={"rope_type": "linear", "factor": 2.0})
    steps = Steps()
    made_by = await make_build(job(folder, tmp_path / "b", "int4"), steps.say)
    assert "optimum-intel==" in made_by
    assert any("has no graph here" in step for step in steps)
    assert any("ready after" in step for step in steps)
    assert read_folder(tmp_path / "b").context == 256
    assert json.loads((tmp_path / "b" / "config.json").read_text())["rope_scaling"]["factor"] == 2.0
