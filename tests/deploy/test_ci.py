"""The templates for CI: YAML of the shape that each service reads, commands that exist with the flags that are given, no key in the open."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from penstock.cli.main import cli

FOLDER = Path(__file__).parents[2] / "deploy" / "ci"
GITHUB: dict[str, Any] = yaml.load((FOLDER / "github-actions.yml").read_text(), Loader=yaml.BaseLoader)
GITLAB: dict[str, Any] = yaml.safe_load((FOLDER / "gitlab-ci.yml").read_text())


def scripts() -> Iterator[str]:
    for job in GITHUB["jobs"].values():
        yield from (step["run"] for step in job["steps"] if "run" in step)
    for name, job in GITLAB.items():
        if name not in ("stages", "variables"):
            for part in ("before_script", "script", "after_script"):
                yield from job.get(part, ())


COMMANDS = [
    found.strip().removesuffix("; fi")
    for script in scripts()
    for found in re.findall(r"(?:^|; then | )(penstock .*)$", script, re.MULTILINE)
]


def test_all_parts_are_there() -> None:
    asked = [" ".join(shlex.split(command)[1:3]) for command in COMMANDS]
    assert (
        asked.count("pipeline run") == asked.count("pipeline show") == asked.count("pipeline cancel") == 2
    )  # one each
    assert sum(command.startswith("penstock approve") for command in COMMANDS) == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_takes_what_is_given(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "meta.yaml").touch()
    (tmp_path / "model").mkdir()
    words = shlex.split(command.partition(" > ")[0].replace("$FOLDER", "model").replace("$REFERENCE", "bot-v1.2.0"))
    found: click.Command = cli
    context = click.Context(cli, info_name="penstock")
    words = words[1:]
    while isinstance(found, click.Group):
        below = found.get_command(context, words.pop(0))
        assert below is not None, command
        found = below
    found.make_context(command, words)


def test_github_runs_it_for_release_tags_with_keys_from_secrets() -> None:
    assert GITHUB["on"] == {"push": {"tags": ["*-v[0-9]+.[0-9]+.[0-9]+*"]}}
    prove, deliver = GITHUB["jobs"]["prove"], GITHUB["jobs"]["deliver"]
    assert (deliver["needs"], deliver["environment"]) == ("prove", "production")
    assert GITHUB["concurrency"]["cancel-in-progress"] == "false"
    keys = [prove["env"]["PENSTOCK_KEY"], *(s["env"]["PENSTOCK_KEY"] for s in deliver["steps"] if "env" in s)]
    assert all(re.fullmatch(r"\$\{\{ secrets\.\w+ \}\}", key) for key in keys), keys
    assert len(set(keys)) == 2  # who approves is somebody else
    for job in (prove, deliver):
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])
        assert int(job["timeout-minutes"]) > 0


def test_gitlab_runs_it_for_release_tags_and_asks_somebody() -> None:
    assert GITLAB["stages"] == [GITLAB["prove"]["stage"], GITLAB["deliver"]["stage"]]
    [proves], [delivers] = GITLAB[".penstock"]["rules"], GITLAB["deliver"]["rules"]
    pattern = re.search(r"=~ /(.*)/$", proves["if"])
    assert pattern is not None
    assert re.match(pattern[1], "support-bot-v1.2.0")
    assert not re.match(pattern[1], "notes-2026")
    assert (delivers["if"], delivers["when"]) == (proves["if"], "manual")
    assert GITLAB["deliver"]["environment"] == {"name": "production"}
    assert "pipeline.json" in GITLAB["prove"]["artifacts"]["paths"]


def test_no_key_is_written_down() -> None:
    for file in FOLDER.iterdir():
        assert "pk-" not in file.read_text()
