"""A version's own code at work in a real engine: other code, other answers; refused unless it is signed; streams held or refused; its failures told."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from penstock.core.digests import sha256_digest
from penstock.core.errors import Damaged
from penstock.core.jobs import Vouched
from penstock.core.provenance import Provenance
from penstock.core.settings import EngineSettings
from penstock.examiner.asking import running_engine as examined
from penstock.registry.manifest import canonical, make_manifest, manifest_digest
from penstock.registry.signing import public_of, sign_version
from tests.engine.conftest import DEADLINE_S, Running, running_engine
from tests.engine.test_processing_served import ask, streamed, text

pytestmark = pytest.mark.engine

CODE = """
def ends(text):
    return f"{len(text)} characters: {text}"

def asks(text):
    if "secret" in text:
        raise ValueError("we do not speak of that")
    return text.replace("parcel", "the order")

def slow(text):
    while True:
        pass
"""


def with_code(tiny: Path, folder: Path, code: str = CODE, **steps: Any) -> Path:
    shutil.copytree(tiny, folder)
    (folder / "processing.json").write_text(json.dumps(steps))
    (folder / "processing.py").write_text(code)
    return folder


def calls(function: str, **more: Any) -> dict[str, Any]:
    return {"do": "python", "function": function, **more}


def refused(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


def test_code_makes_the_answers(engine: Running, tiny: Path, tmp_path: Path) -> None:
    plain = text(ask(engine))
    folder = with_code(
        tiny, tmp_path / "m", input=[calls("asks")], output=[{"do": "trim"}, calls("ends"), {"do": "template", "template": "[{text}]"}],
        stream="hold",
    )  # fmt: skip
    with running_engine(folder, signed=True) as coded:
        wanted = f"[{len(plain.strip())} characters: {plain.strip()}]"
        reply = ask(coded)
        assert text(reply) == wanted
        assert reply.json()["usage"]["completion_tokens"] == 24
        assert text(ask(coded, prompt="parcel")) == wanted, "code sees the request first"
        held = ask(coded, stream=True)
        assert streamed(held) == wanted
        assert held.text.endswith("data: [DONE]\n\n")
        assert [one["text"] for one in ask(coded, n=2).json()["choices"]] == [wanted, wanted]
        chat = {"model": "tiny", "messages": [{"role": "user", "content": "a secret"}], "max_tokens": 4}
        said = httpx.post(f"{coded.url}/v1/chat/completions", json=chat, timeout=DEADLINE_S)
        assert refused(said) == (400, "processing_failed")
        assert "ValueError: we do not speak of that (line 7)" in said.json()["error"]["message"]
        told = httpx.post(f"{coded.url}/v1/completions", json={"model": "tiny", "prompt": "x", "stream": True}, headers={"x-penstock-resume": "tell"}, timeout=DEADLINE_S)  # fmt: skip
        assert "x-penstock-resume" not in told.headers, "what code has made is not gone on with elsewhere"
        assert coded.metric("penstock_engine_code_calls_total", outcome="done") >= 8
        assert coded.metric("penstock_engine_code_calls_total", outcome="raised") == 1


def test_code_that_takes_too_long_fails_its_request_alone(tiny: Path, tmp_path: Path) -> None:
    folder = with_code(tiny, tmp_path / "m", output=[calls("slow", seconds=0.3)])
    with running_engine(folder, signed=True) as coded:
        assert refused(ask(coded)) == (502, "processing_killed")
        assert refused(ask(coded, stream=True)) == (400, "processing_needs_whole_answer")
        assert coded.metric("penstock_engine_code_calls_total", outcome="killed") == 1
        assert httpx.get(f"{coded.url}/readyz").status_code == 200


@pytest.mark.parametrize(
    ("signed", "code", "words", "kind"),
    [
        (False, CODE, "nobody who is trusted has signed it", "unsigned_code"),
        (True, "def other(text): return text", "has no function 'ends'", "damaged"),
        (True, "import this is none", "SyntaxError", "damaged"),
    ],
)
def test_an_engine_refuses_to_load_it(
    tiny: Path, tmp_path: Path, signed: bool, code: str, words: str, kind: str
) -> None:
    folder = with_code(tiny, tmp_path / "m", code, output=[calls("ends")])
    with pytest.raises(Damaged) as told, running_engine(folder, signed=signed):
        pass
    assert words in told.value.message
    assert told.value.code == kind


def test_code_that_no_step_calls_is_refused_too(tiny: Path, tmp_path: Path) -> None:
    folder = with_code(tiny, tmp_path / "m", output=[{"do": "trim"}])
    with pytest.raises(Damaged, match="no step there does"), running_engine(folder, signed=True):
        pass


def vouched(folder: Path, seed: bytes, keys: tuple[str, ...]) -> Vouched:
    """What control hands over of a build that `seed` has signed."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    manifest = make_manifest(
        {f"openvino-int8/{name}": (sha256_digest(data), len(data)) for name, data in files.items()}
    )
    digest = manifest_digest(manifest)
    told = Provenance(
        version="bot:v1",
        manifest=canonical(manifest).decode(),
        folder="openvino-int8",
        envelopes=(sign_version(seed, digest=digest, name="bot:v1", at=1.0),),
    )
    file = folder.with_suffix(".json")
    file.write_bytes(msgspec.json.encode(told))
    return Vouched(provenance=str(file), digest=digest, keys=keys)


def test_the_examiner_runs_it_if_it_is_signed(tiny: Path, tmp_path: Path) -> None:
    folder = with_code(tiny, tmp_path / "m", output=[calls("ends")])
    settings = EngineSettings(kv_cache_mb=8, threads=1)
    seed = bytes(range(32))

    async def answer(proof: Vouched | None) -> str:
        async with examined(folder, settings, proof) as asked:
            return (await asked.prompt("hello", 1, 4)).text

    assert " characters: " in asyncio.run(answer(vouched(folder, seed, (public_of(seed),))))
    with pytest.raises(Damaged, match="Nobody who is trusted has signed"):
        asyncio.run(answer(vouched(folder, seed, (public_of(bytes(32)),))))
    for proof in (None, vouched(folder, seed, ())):
        with pytest.raises(Damaged, match="nobody who is trusted has signed"):
            asyncio.run(answer(proof))
    proof = vouched(folder, seed, (public_of(seed),))
    (folder / "processing.py").write_text(CODE.replace("characters", "letters"))
    with pytest.raises(Damaged, match=r"processing\.py is damaged"):
        asyncio.run(answer(proof))
