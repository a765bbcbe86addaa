"""The commands that pages show exist and take the flags that are shown; the modules and files that they name are there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from penstock.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("examples/*/README.md"))]


def shown() -> Iterator[tuple[str, str]]:
    """Each line of a shell block, continued lines as one, with the page that it stands in."""
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                yield page.relative_to(ROOT).as_posix(), line.split(" #")[0].strip()


COMMANDS = [(page, line) for page, line in shown() if line.startswith(("penstock ", ".venv/bin/penstock "))]


def test_there_are_examples() -> None:
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_the_command_takes_what_is_shown(page: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = shlex.split(line)[1:]
    monkeypatch.chdir(tmp_path)
    for word in words:  # files that the reader is to write
        if word.endswith((".yaml", ".md", ".jsonl")) or word.startswith("./"):
            path = tmp_path / word
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch() if path.suffix else path.mkdir(exist_ok=True)
    command: click.Command = cli
    context = click.Context(cli, info_name="penstock")
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command = found
    command.make_context(line, words)


@pytest.mark.parametrize(("page", "line"), [(page, line) for page, line in shown() if " -m examples." in line])
def test_the_module_is_there(page: str, line: str) -> None:
    module = line.split(" -m ")[1].split(maxsplit=1)[0]
    assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), page


def test_files_named_in_the_tour_are_there() -> None:
    for path in re.findall(r"-f (examples/\S+)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / path).exists()
