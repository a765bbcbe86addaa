"""Every command, setting, metric and error code is described, and what the pages say is what the code is."""

import ast
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from penstock.core import errors

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "reference"
made: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "make_reference.py"))


@pytest.mark.parametrize("name", sorted(made["PAGES"]))
def test_the_page_is_what_the_code_is(name: str) -> None:
    assert (PAGES / name).read_text(encoding="utf-8") == made["PAGES"][name](), "run scripts/make_reference.py"


def test_every_setting_is_described_and_no_other() -> None:
    assert {path for path, _, _ in made["settings_fields"]()} == set(made["SETTINGS"])


def test_every_command_tells_what_it_does() -> None:
    found = dict(made["commands"]())
    assert {"penstock up", "penstock models push", "penstock doctor"} <= set(found)
    assert not [name for name, command in found.items() if not (command.help or "").strip()]
    flags = {
        (name, p.name)
        for name, command in found.items()
        for p in command.params
        if isinstance(p, click.Option) and not p.hidden and not p.help
    }
    assert not flags


def raised_codes() -> Iterator[str]:
    """Every code that the sources give to an error, as a default or where it is raised."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                for keyword in node.keywords:
                    if (
                        keyword.arg == "code"
                        and isinstance(keyword.value, ast.Constant)
                        and isinstance(keyword.value.value, str)
                    ):
                        yield keyword.value.value
            elif (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Constant)
                and any(isinstance(target, ast.Name) and target.id == "default_code" for target in node.targets)
            ):
                yield str(node.value.value)


def test_every_error_code_is_described() -> None:
    described = set(re.findall(r"^\| `([a-z_]+)` \|", (PAGES / "errors.md").read_text(encoding="utf-8"), re.MULTILINE))
    raised = set(raised_codes())
    assert raised - described == set()
    assert described - raised - {errors.PenstockError.default_code, "internal_error"} == set()


def test_every_cause_that_doctor_names_is_described_and_no_other() -> None:
    named = set[str]()
    for path in (ROOT / "src" / "penstock" / "diagnosis").glob("*.py"):
        named |= set(re.findall(r'^ +name="([a-z_]+)",$', path.read_text(encoding="utf-8"), re.MULTILINE))
    table = re.findall(r"^\| (`[a-z_`, ]+`) \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    assert named == set(re.findall(r"[a-z_]+", " ".join(table)))
    assert len(named) > 20


def test_every_metric_has_a_unit_or_counts() -> None:
    from penstock.core.metrics import TABLE

    assert not [m.name for m in TABLE if m.kind == "counter" and not m.name.endswith("_total")]
    assert not [m.name for m in TABLE if not m.help.strip()]


def test_links_between_pages_lead_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_sources_that_pages_name_are_there() -> None:
    """A page names a source by the end of its path: `gateway/walk.py`, or `resume.py` where the folder goes without saying."""
    folders = [ROOT / "src", ROOT / "tests", ROOT / "examples", ROOT / "scripts"]
    found = [*(path for folder in folders for path in folder.rglob("*.py")), *(ROOT / "bench").glob("*.py")]
    there = {f"/{path.relative_to(ROOT).as_posix()}" for path in found}
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        for named in re.findall(r"`([\w./-]+\.py)`", page.read_text(encoding="utf-8")):
            assert any(path.endswith(f"/{named}") for path in there), f"{page.name} names {named}"


def test_the_table_of_folders_has_each_room_and_no_other() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## Folders")[2].partition("## The data folder")[0]
    told = {name.partition("/")[0] for name in re.findall(r"^\| `([a-z/]+)/` \|", table, re.MULTILINE)}
    package = ROOT / "src" / "penstock"
    assert told == {path.parent.name for path in package.glob("*/__init__.py")}
    (rooms,) = re.findall(r"^\| `control/` \| (.*) \|$", table, re.MULTILINE)
    control = {path.parent.name for path in package.glob("control/*/__init__.py")}
    assert control == set(re.findall(r"`([a-z]+)/`", rooms))
