"""A GPT-2 that was built here, on the real engine: it goes on with texts, and says that it cannot chat."""

from pathlib import Path

import httpx
import pytest

from penstock.engine.convert.folder import convert
from penstock.engine.folder import read_folder
from tests.engine.conftest import running_engine
from tests.engine.convert.models import write_gpt2

pytestmark = pytest.mark.engine


def test_it_completes_and_does_not_chat(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    convert(write_gpt2(tmp_path / "m"), folder, "int8", lambda _step: None)
    read = read_folder(folder)
    assert read.context == 64
    assert (
        read.block_bytes == 2 * 2 * 4 * 16 * 32 * 2
    )  # layers, keys and values, heads, their width, tokens, half precision
    with running_engine(folder, "gpt2") as engine:
        body = {"model": "gpt2", "prompt": "Once upon a time", "max_tokens": 5, "temperature": 0}
        told = [httpx.post(f"{engine.url}/v1/completions", json=body, timeout=60).json() for _ in range(2)]
        assert told[0]["usage"]["completion_tokens"] == 5
        assert told[0]["choices"] == told[1]["choices"]
        chat = {"model": "gpt2", "messages": [{"role": "user", "content": "Hello"}]}
        reply = httpx.post(f"{engine.url}/v1/chat/completions", json=chat, timeout=60)
        assert reply.status_code == 400
        assert reply.json()["error"]["code"] == "no_chat_template"
        assert "/v1/completions" in reply.json()["error"]["message"]
