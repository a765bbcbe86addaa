"""The ML Test Score: its 28 tests, its points, its score."""

import shlex
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.main import cli
from penstock.registry.rubric import GROUPS, TESTS, Answer, Evidence, Readiness, score

ANSWER = Answer(text="Compared over a month.", principal="me", signer="team", at=1.0)
IDS = [test.id for test in TESTS]


def scored(found: dict[str, Evidence], answers: dict[str, Answer]) -> Readiness:
    return score(found, answers, model="m", label="v1.0.0", environment="production")


def test_there_are_seven_tests_in_each_of_four_groups() -> None:
    assert {group: sum(test.group == group for test in TESTS) for group in GROUPS} == dict.fromkeys(GROUPS, 7)
    assert len(set(IDS)) == 28


def test_nothing_is_a_research_project_and_everything_is_exceptional() -> None:
    nothing = scored({}, {})
    assert (nothing.score, nothing.meaning) == (0.0, "More of a research project than a productionized system.")
    assert all(line.command for line in nothing.lines)
    everything = scored({test: Evidence(points=1.0, words="yes") for test in IDS}, {})
    assert (everything.score, everything.meaning) == (7.0, "Exceptional levels of automated testing and monitoring.")
    assert not any(line.command for line in everything.lines)


def test_the_weakest_group_is_the_score() -> None:
    found = {test.id: Evidence(points=1.0, words="yes") for test in TESTS if test.group != "model"}
    assert scored(found, {"model-2": ANSWER}).score == 0.5
    assert scored(found, {"model-2": ANSWER}).groups == {"data": 7, "model": 0.5, "infrastructure": 7, "monitoring": 7}


def test_a_signed_answer_is_half_a_point_and_evidence_goes_before_it() -> None:
    lines = {line.id: line for line in scored({}, {"model-2": ANSWER}).lines}
    assert lines["model-2"].points == 0.5
    assert "signed by team: Compared over a month." in lines["model-2"].words
    assert lines["model-3"].command == 'penstock readiness m:v1.0.0 --answer model-3 --text "..." --signer NAME'
    better = scored({"model-2": Evidence(points=1.0, words="measured")}, {"model-2": ANSWER})
    assert next(line for line in better.lines if line.id == "model-2").words == "measured"
    against = scored({"model-2": Evidence(points=0.0, words="it does not")}, {"model-2": ANSWER})
    assert next(line for line in against.lines if line.id == "model-2").points == 0.5


@given(st.sets(st.sampled_from(IDS)), st.sets(st.sampled_from(IDS)))
def test_more_evidence_never_lowers_the_score(some: set[str], more: set[str]) -> None:
    def of(ids: set[str]) -> float:
        return scored({test: Evidence(points=1.0, words="") for test in ids}, {}).score

    assert of(some) <= of(some | more)


def test_the_commands_that_supply_evidence_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    (tmp_path / "DIR").mkdir()
    for line in scored({}, {}).lines:
        words = shlex.split(line.command)[1:]
        command: click.Command = cli
        while isinstance(command, click.Group):
            found = command.get_command(click.Context(cli, info_name="penstock"), words.pop(0))
            assert found is not None, line.command
            command = found
        command.make_context(line.command, words)
