"""The budget table has a line for every step of the walk and none besides, each from a measurement of that step."""

import ast
from datetime import UTC, datetime
from pathlib import Path

import pytest

import penstock.gateway
from bench import budget
from bench.alone import alone_us, ways
from bench.load import HERE
from bench.steps import Bench
from penstock.core.exchange import Exchange
from penstock.journal.inspect import cat

WALK = Path(penstock.gateway.__path__[0]) / "walk.py"


def walked() -> tuple[set[str], set[str]]:
    """What the walk calls of the gateway's steps, and every name that it calls."""
    tree = ast.parse(WALK.read_text())
    ours = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("penstock.gateway.")
        for alias in node.names
    }
    called: set[str] = set()
    for function in tree.body:
        if isinstance(function, ast.AsyncFunctionDef) and function.name in {"walk", "_answer"}:
            for node in ast.walk(function):
                if isinstance(node, ast.Name):  # relay and relay_stream are chosen between, and called by no name
                    called.add(node.id)
                elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    called.add(node.func.attr)
    return ours & called - {"Call", "Caller"}, called


def test_every_step_of_the_walk_has_a_line_and_every_line_a_step() -> None:
    steps, called = walked()
    assert {"decode", "dispatch", "relay", "relay_stream", "relay_both"} <= steps
    told = [name for step in budget.STEPS for name in step.calls]
    assert len(told) == len(set(told)), "a call belongs to one step"
    assert steps <= set(told), f"steps of the walk without a line in bench/budget.py: {sorted(steps - set(told))}"
    assert set(told) <= called, f"lines of bench/budget.py that are no step: {sorted(set(told) - called)}"
    assert all(step.calls and step.name in step.calls for step in budget.STEPS if step.name not in NAMED_OTHERWISE)


NAMED_OTHERWISE = {"admit", "record"}  # whose calls are the pool's and the recorder's


def test_the_page_has_the_table_that_the_code_has() -> None:
    text = budget.PAGE.read_text()
    inside = text.partition(budget.BEGIN)[2].partition(budget.END)[0]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in inside.splitlines() if line.startswith("| `")
    ]
    names = [name for name, _, _ in budget.AROUND] + [step.name for step in budget.STEPS]
    expected = budget.rows(dict.fromkeys(names, 0.0))
    assert [(name, what, most) for name, what, most, _ in lines] == [
        (f"`{name}`", what, f"{most:g}") for name, what, most, _ in expected
    ], "`python -m bench.budget --write`"
    assert all(float(measured.strip("*").removesuffix(", over")) >= 0 for *_, measured in lines)
    assert "Measured 20" in inside


async def test_every_line_is_measured() -> None:
    us = await alone_us(count=4, rounds=1, requests=8)
    found = budget.rows(us)
    assert len(found) == len(budget.STEPS) + len(budget.AROUND)
    for step in budget.STEPS:
        if step.always:
            assert us[step.name] > 0, step.name


# What a request asks of engines, and what its record says of it.
@pytest.mark.parametrize(
    ("name", "asked", "said"),
    [
        ("together", 1, {"pool": "mock", "escalated": False}),
        ("share", 1, {"pool": "mock"}),
        ("relay_both", 2, {"pool": "mock"}),
        ("draft", 1, {"pool": "small", "escalated": False}),
        ("escalate", 2, {"pool": "mock", "escalated": True}),
        ("elsewhere", 1, {"pool": "mock", "fallback": True}),
        ("resume_stream", 1, {"pool": "mock"}),
    ],
)
async def test_a_way_takes_the_way_that_it_is_named_for(
    tmp_path: Path, name: str, asked: int, said: dict[str, object]
) -> None:
    way = ways()[name]
    body = (HERE / ("body1k_stream.json" if way.stream else "body1k.json")).read_bytes()
    folder = tmp_path / "journal" / "bench"
    folder.parent.mkdir()
    bench = Bench(way.made, folder, body=body, stream=way.stream, connections=1)
    await bench.start()
    assert await bench.run(3) > 0
    bench.gateway.recorder.flush()
    await bench.client.close()
    await bench.server.drain(0)
    assert bench.asked == 3 * asked
    records = [one for _, _, one in cat(tmp_path / "journal") if isinstance(one, Exchange)]
    assert len(records) == 3
    assert {field: getattr(records[0], field) for field in said} == said


def test_what_is_written_stands_between_its_marks_and_what_is_over_is_marked(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{budget.BEGIN}\nold\n{budget.END}\n\nafter\n")
    names = [name for name, _, _ in budget.AROUND] + [step.name for step in budget.STEPS]
    budget.write(dict.fromkeys(names, 0.25) | {"decode": 9999.0}, page)
    text = page.read_text()
    assert text.startswith("before\n\n") and text.endswith("\n\nafter\n") and "old" not in text
    assert "**9999.0, over**" in text and text.count("over**") == 1
    budget.write(dict.fromkeys(names, 0.25), page)
    assert "over**" not in page.read_text()
    page.write_text("no table")
    with pytest.raises(ValueError, match="has no lines"):
        budget.write(dict.fromkeys(names, 0.25), page)
    with pytest.raises(KeyError):
        budget.rows({"decode": 1.0})
    assert "2026-11-23" in budget.circumstances(datetime(2026, 11, 23, tzinfo=UTC))
