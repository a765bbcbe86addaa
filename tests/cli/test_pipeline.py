"""`penstock pipeline` and `penstock webhooks` as people and CI meet them: what is said, and the exit status."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from penstock.cli.main import cli
from penstock.control.bootstrap import bootstrap
from penstock.control.pipelines.loop import Pipelines
from penstock.core.errors import BadRequest, Conflict, NotFound
from penstock.delivery.webhooks import parse_secret
from tests.console.house import ADMIN, House
from tests.control.house import version_files


class Said(NamedTuple):
    """What a command printed, and its exit status."""

    out: str
    err: str
    status: int


class Desk:
    """A house whose pipelines go on by themselves, and commands that ask it."""

    def __init__(self, house: House, folder: Path) -> None:
        self.house = house
        self.folder = folder

    def run(self, *words: str) -> Said:
        done = CliRunner().invoke(cli, [*words, "--url", self.house.url, "--key", ADMIN], standalone_mode=False)
        if done.exception is not None:
            raise done.exception
        return Said(done.stdout, done.stderr, done.return_value or 0)

    def files(self, text: str) -> str:
        """A folder with a version's files."""
        place = self.folder / text
        for path, data in version_files(text).items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(data)
        return str(place)


@contextmanager
def going_on(house: House) -> Iterator[None]:
    """The loop of pipelines runs."""

    async def run() -> None:
        house.loop_task = asyncio.create_task(Pipelines(house.control).run())  # type: ignore[attr-defined]

    async def stop() -> None:
        house.loop_task.cancel()  # type: ignore[attr-defined]
        await asyncio.gather(house.loop_task, return_exceptions=True)  # type: ignore[attr-defined]

    house.do(run())
    try:
        yield
    finally:
        house.do(stop())


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("pipeline")
    with House(folder, "http://127.0.0.1:9").running() as house:
        house.do(bootstrap(house.control, starter=None))
        with going_on(house):
            yield Desk(house, folder / "files")


def test_files_reach_the_last_environment_and_the_same_command_says_so_again(desk: Desk) -> None:
    words = ("pipeline", "run", desk.files("one"), "bot:v1.0.0", "--through", "dev,staging", "--reason", "first")
    said = desk.run(*words)
    assert said.status == 0
    assert "ok       push: Its files are committed." in said.out
    assert "ok       promote staging: It is live in staging." in said.out
    assert said.out.endswith("bot:v1.0.0 is live in staging.\n")
    first = json.loads(desk.run("pipeline", "show", "bot:v1.0.0", "--json").out)
    again = json.loads(desk.run(*words, "--json").out)
    assert (again["id"], again["state"]) == (first["id"], "done")
    assert "first" in desk.run("history", "bot").out
    table = desk.run("pipeline", "list", "--of", "bot", "--state", "done").out
    assert first["id"] in table
    with pytest.raises(Conflict) as raised:
        desk.run("pipeline", "run", desk.files("two"), "bot:v1.0.0", "--through", "dev,staging")
    assert raised.value.code == "label_taken"


def test_a_gate_that_refuses_is_exit_status_1_with_what_it_said(desk: Desk) -> None:
    gates = {"gates": {"card": True, "approval": {"by_other": True}}}
    desk.house.call("PUT", "/environments/staging", {"name": "staging", "spec": gates})
    try:
        words = ("pipeline", "run", desk.files("three"), "bot:v1.1.0", "--through", "staging")
        said = desk.run(*words, "--until", "people")
        assert said.status == 0
        assert "gate staging: It waits for people." in said.out
        with pytest.raises(Conflict, match="by another plan"):
            desk.run(*words, "--patience", "0")
        assert "is cancelled" in desk.run("pipeline", "cancel", "bot-v1.1.0", "--reason", "over").out
        said = desk.run(*words, "--patience", "0")
        assert said.status == 1
        assert "REFUSED  gate staging: card: The card lacks" in said.out
        assert "penstock approve bot:v1.1.0 --for staging" in said.out
        assert said.err.startswith("Error: bot:v1.1.0 was refused. gate staging: card:")
        document = json.loads(desk.run("pipeline", "show", "bot:v1.1.0", "--follow", "--json").out)
        assert document["state"] == "refused"
        assert [one["gate"] for one in document["steps"][3]["outcomes"]] == ["card", "approval"]
    finally:
        desk.house.call("PUT", "/environments/staging", {"name": "staging", "spec": {}})


def test_what_can_never_go_on_leaves_no_pipeline_behind(desk: Desk, tmp_path: Path) -> None:
    meta = tmp_path / "meta.yaml"
    meta.write_text("nonsense: 1\n")
    with pytest.raises(BadRequest, match="nonsense"):
        desk.run("pipeline", "run", desk.files("four"), "bot:v1.2.0", "--meta", str(meta))
    said = json.loads(desk.run("pipeline", "show", "bot:v1.2.0", "--json").out)
    assert said["state"] == "cancelled"
    assert "nonsense" in said["words"]


@pytest.mark.parametrize(
    ("words", "error", "sentence"),
    [
        (("run", "a", "b", "bot:v1"), BadRequest, "a folder and NAME:LABEL"),
        (("run", "nowhere", "bot:v1.0.0"), BadRequest, "nowhere is no folder"),
        (("run", "bot@production"), BadRequest, "has no label"),
        (("run", "bot:v9.9.9"), NotFound, "v9.9.9"),
        (("show", "bot:v9.9.9"), NotFound, "no pipeline of bot:v9.9.9"),
        (("run", "bot:v1.0.0", "--steps", "x"), BadRequest, "give percents"),
    ],
)
def test_what_is_wrong_is_a_sentence(desk: Desk, words: tuple[str, ...], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        desk.run("pipeline", *words)


def test_webhooks_are_made_shown_and_removed(desk: Desk) -> None:
    secret = CliRunner().invoke(cli, ["webhooks", "secret"], standalone_mode=False).output
    assert len(parse_secret(secret)) == 32
    folder = desk.house.control.data / "secrets"
    folder.mkdir()
    (folder / "deploys").write_text(secret)
    create = ("webhooks", "create", "deploys", "--to", "https://hooks.example.com/x", "--secret", "deploys")
    assert "is created" in desk.run(*create, "--event", "version.*", "--model", "bot").out
    table = desk.run("webhooks", "list").out
    assert "https://hooks.example.com/x" in table
    assert "version.*" in table
    assert "told of nothing yet" in desk.run("webhooks", "deliveries", "deploys").out
    assert "on its way" in desk.run("webhooks", "test", "deploys").out
    assert "0 are sent again" in desk.run("webhooks", "redeliver", "deploys", "--dead").out
    with pytest.raises(BadRequest, match="EVENT"):
        desk.run("webhooks", "redeliver", "deploys")
    assert "deployment.live" in desk.run("webhooks", "events").out
    desk.run("webhooks", "remove", "deploys")
    assert "There is no webhook" in desk.run("webhooks", "list").out
