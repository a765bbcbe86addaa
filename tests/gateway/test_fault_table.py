"""The table of faults, line by line; `pytest -s` prints it, as `python -m bench.faults` does."""

import asyncio

import pytest

from tests.gateway.fault_table import CASES, LONGEST_S, Case, Row, play, table

BESIDE = tuple(case for case in CASES if not case.quick or case.elsewhere)  # time limits end the others in any case


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Row]:
    """What came of each case."""
    rows = asyncio.run(play(tmp_path_factory.mktemp("alone")))
    print("\n" + table(rows))
    return {row.case: row for row in rows}


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Row]:
    """The same beside a replica that is well, as far as that changes anything."""
    rows = asyncio.run(play(tmp_path_factory.mktemp("beside"), BESIDE, second=True))
    return {row.case: row for row in rows}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_the_client_gets(case: Case, alone: dict[Case, Row]) -> None:
    row = alone[case]
    assert row.problems == ()
    assert row.seconds < LONGEST_S
    assert row.attempts == 1, "there is no other replica"


@pytest.mark.parametrize("case", BESIDE, ids=lambda case: case.id)
def test_what_it_gets_beside_a_replica_that_is_well(case: Case, beside: dict[Case, Row]) -> None:
    row = beside[case]
    assert row.problems == ()
    assert row.attempts == 1 + case.elsewhere
