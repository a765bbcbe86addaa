"""The claims of `make bench-experiments`, each with a small part of its size."""

import pytest

from bench.checks import run
from bench.experiments import found_checks, the_check

PART = 0.002


@pytest.mark.parametrize("place", found_checks(), ids=lambda place: the_check(*place).name)
def test_a_claim(place: tuple[str, int]) -> None:
    line = run(the_check(*place), PART)
    assert line.met, f"{line.name}: {line.figure}, target {line.target}"
