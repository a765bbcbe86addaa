"""O'Brien-Fleming by alpha spending: published boundaries, all of alpha spent, power by simulation."""

import numpy as np
import pytest

from penstock.experiments.group_sequential import boundaries, even, inflation, power, spent

# Lan and DeMets' function of O'Brien and Fleming's type, two-sided .05; R's ldbounds: ldBounds(t, iuse = c(1, 1), alpha = c(.025, .025))
PUBLISHED = {
    (1.0,): (1.9600,),
    even(2): (2.9626, 1.9686),
    even(3): (3.7103, 2.5114, 1.9930),
    even(4): (4.3326, 2.9631, 2.3590, 2.0141),
    even(5): (4.8769, 3.3569, 2.6803, 2.2898, 2.0310),
}


@pytest.mark.parametrize(("fractions", "wanted"), PUBLISHED.items())
def test_boundaries_are_the_published_ones(fractions: tuple[float, ...], wanted: tuple[float, ...]) -> None:
    assert [round(bound, 4) for bound in boundaries(fractions, 0.05)] == pytest.approx(list(wanted), abs=1.01e-4)


def test_all_of_alpha_is_spent_and_no_more() -> None:
    for fractions in (even(1), even(5), (0.1, 0.15, 0.8, 1.0)):
        assert power(fractions, 0.05, 0.0) == pytest.approx(0.05, abs=1e-6)
    assert spent(0.0, 0.05) == 0.0
    assert spent(2.0, 0.05) == 0.05
    assert spent(0.3, 0.05) < spent(0.6, 0.05) < 0.05
    assert boundaries(even(20), 0.05)[0] == 9.0  # a look that may spend nothing never stops


def test_power_is_that_of_simulated_walks() -> None:
    rng = np.random.default_rng(1)
    fractions, drift = (0.25, 0.5, 1.0), 2.8
    bounds = np.array(boundaries(fractions, 0.05))
    steps = np.diff((0.0, *fractions))
    walk = (rng.standard_normal((40_000, 3)) * np.sqrt(steps) + drift * steps).cumsum(1) / np.sqrt(fractions)
    assert power(fractions, 0.05, drift) == pytest.approx((abs(walk) >= bounds).any(1).mean(), abs=0.008)


def test_looking_costs_few_units() -> None:
    # Jennison and Turnbull 2000, table 2.4 has 1.028 for O'Brien and Fleming's own boundaries; spending is a little cheaper.
    assert 1.02 < inflation(5, 0.05, 0.8) < 1.03
    assert inflation(1, 0.05, 0.8) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("fractions", [(), (0.0, 1.0), (0.5, 0.5), (0.5, 0.2)])
def test_looks_must_rise(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="rise"):
        boundaries(fractions, 0.05)
