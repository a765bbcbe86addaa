"""`penstock probe`: a folder and a file of prompts; or what the journal keeps of a version's requests."""

import asyncio
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from penstock.cli.probe import probe
from penstock.compose.settings import read_settings
from penstock.core.exchange import Content, Exchange
from penstock.engine.probe.run import Asked, Probe
from penstock.journal.content import Said
from penstock.journal.keyring import open_keys
from penstock.journal.said import newest_said
from penstock.journal.vault import Vault
from penstock.journal.writer import JournalWriter

MODEL = Path("examples/support_bot/models/support-bot-v1.0.0").absolute()
pytestmark = pytest.mark.engine


class Control:
    """Takes down who reads content, as control does."""

    def __init__(self) -> None:
        self.read: list[str] = []
        told = self.read

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                told.append(f"{self.path} {body['source']}")
                self.send_response(201)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                return

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def control() -> Iterator[Control]:
    one = Control()
    thread = threading.Thread(target=one.server.serve_forever, args=(0.05,))
    thread.start()
    yield one
    one.server.shutdown()
    thread.join()
    one.server.server_close()


def run(data: Path, *words: str, url: str = "http://127.0.0.1:9") -> Result:
    return CliRunner().invoke(probe, [*words, "--data", str(data), "--json", "--url", url, "--key", "k"])


def answered(vault: Vault, number: int, question: str, **more: Any) -> Exchange:
    """A record of one request, with its content sealed."""
    name = f"req_{number:026d}"
    said = Said(messages=(("user", question),), replies=((0, "content", f"answer {number}"), (1, "content", "other")))
    sealed = vault.seal("acme", f"subject-{number}", name, list(said.messages), list(said.replies))
    assert sealed is not None
    content = Content(*sealed, cut=bool(more.pop("cut", False)))
    told: dict[str, Any] = {"version": "support-bot-v1.0.0", "tenant": "acme", "content": content, **more}
    return Exchange(id=name, at=float(number), **told)


def journalled(data: Path, records: list[Exchange]) -> None:
    async def write() -> None:
        loop = asyncio.get_running_loop()
        writer = JournalWriter.open(data / "journal" / "gateway-0", "gateway-0", loop=loop, clock=time.time)
        for record in records:
            writer.append(record)
        writer.close()

    asyncio.run(write())


def test_declared_prompts_run_through_a_folder(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts"
    prompts.write_text('hi\n{"prompt": "Where is my order 4471900?", "answer": "It is on its way."}\n')
    done = run(tmp_path, str(MODEL), "--prompts", str(prompts), "--tokens", "40")
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert (told["model"], told["requests"], told["source"], told["digest"]) == (MODEL.name, 2, "prompts", "")
    assert 0 < told["sink_ratio"] < 1 and 0 < told["entropy_ratio"] < 1 and told["perplexity"] > 1
    assert json.loads(Path(told["file"]).read_text())["perplexity"] == told["perplexity"]
    assert Path(told["file"]).parent == tmp_path / "probes"


def test_what_the_journal_keeps_is_run_again_as_far_as_its_keys_are_there(tmp_path: Path, control: Control) -> None:
    settings = read_settings({"data": str(tmp_path)})
    keys = open_keys(settings)
    vault = Vault(keys)
    records = [answered(vault, number, f"question {number}") for number in range(1, 5)]
    records.append(answered(vault, 5, "of another version", version="support-bot:v9"))
    records.append(answered(vault, 6, "refused", outcome="refused"))
    records.append(answered(vault, 7, "too long", cut=True))
    records.append(Exchange(id="req_8", at=8.0, version="support-bot-v1.0.0"))
    journalled(tmp_path, records)
    keys.forget("acme", "subject-3", time.time())
    found = newest_said(tmp_path / "journal", keys, "support-bot-v1.0.0", 3)
    assert [said.messages[0][1] for said in found] == ["question 4", "question 2"]
    keys.close()
    done = run(tmp_path, str(MODEL))
    assert done.exit_code != 0, "nothing is read of which nobody takes note"
    done = run(tmp_path, str(MODEL), url=control.url)
    assert done.exit_code == 0, done.output
    (read,) = control.read
    assert read.startswith(f"/api/v1/content/readings probe of {MODEL.name} on ")
    told = json.loads(done.output)
    assert (told["requests"], told["source"]) == (3, "journal")
    asked = [Asked((("user", f"question {n}"),), f"answer {n}") for n in (4, 2, 1)]
    again = Probe(MODEL).run(asked, model=MODEL.name)
    assert told["perplexity"] == pytest.approx(again.perplexity)
    assert told["tokens"] == again.tokens
    assert "question" not in done.output + Path(told["file"]).read_text()


def test_where_nothing_is_kept_it_says_what_to_do(tmp_path: Path) -> None:
    done = run(tmp_path, str(MODEL))
    assert done.exit_code != 0
    assert "content" in str(done.exception)
