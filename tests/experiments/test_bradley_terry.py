"""Bradley-Terry: published strengths, two models in closed form, intervals that hold while watched."""

import math
import random

import pytest

from penstock.experiments.bradley_terry import bradley_terry

# Stigler 1994: cited by row, citing by column; strengths as in R's BradleyTerry2, "citations"
JOURNALS = ("Biometrika", "Comm Statist", "JASA", "JRSS-B")
CITATIONS = ((714, 730, 498, 221), (33, 425, 68, 17), (320, 813, 1072, 142), (284, 276, 325, 188))


def test_stiglers_citations() -> None:
    wins = {(a, b): float(CITATIONS[i][j]) for i, a in enumerate(JOURNALS) for j, b in enumerate(JOURNALS)}
    fitted = bradley_terry(wins, "Biometrika")
    assert [round(fitted[name].value, 5) for name in JOURNALS] == [0.0, -2.94907, -0.47957, 0.26895]
    # The standard errors that R prints with them: .10255, .06059, .07083. The sequence is wider than a fixed interval.
    for name, error in (("Comm Statist", 0.10255), ("JASA", 0.06059), ("JRSS-B", 0.07083)):
        reach = fitted[name].high - fitted[name].value
        assert 1.96 * error < reach < 3.6 * error
    other = bradley_terry(wins, "JASA")
    assert other["Biometrika"].value == pytest.approx(-fitted["JASA"].value)


def test_two_models_are_a_coin() -> None:
    fitted = bradley_terry({("a", "b"): 60.0, ("b", "a"): 40.0}, "b")
    assert fitted["a"].value == pytest.approx(math.log(1.5))
    error = 1 / math.sqrt(100 * 0.6 * 0.4)
    assert fitted["a"].high - fitted["a"].value > 1.96 * error


def test_who_never_lost_has_no_finite_strength() -> None:
    fitted = bradley_terry({("a", "b"): 7.0}, "b")
    assert fitted["a"] == (math.inf, -math.inf, math.inf)
    assert fitted["b"] == (0.0, 0.0, 0.0)
    apart = bradley_terry({("a", "b"): 3.0, ("b", "a"): 1.0, ("c", "d"): 2.0}, "b")
    assert apart["c"].low == -math.inf


def test_few_comparisons_have_no_interval() -> None:
    assert bradley_terry({("a", "b"): 6.0, ("b", "a"): 4.0}, "b")["a"].low == -math.inf


@pytest.mark.parametrize("wins", [{}, {("a", "a"): 4.0}, {("a", "b"): -1.0}, {("x", "y"): 1.0}])
def test_what_cannot_be_fitted_is_refused(wins: dict[tuple[str, str], float]) -> None:
    with pytest.raises(ValueError, match=r"compared|negative"):
        bradley_terry(wins, "a")


def test_watched_strengths_of_equals_are_seldom_called_different() -> None:
    rng = random.Random(3)
    names, wrong = ("a", "b", "c"), 0
    for _ in range(60):
        wins: dict[tuple[str, str], float] = {}
        for _ in range(20):
            for one, other in (("a", "b"), ("b", "c"), ("a", "c")):
                heads = rng.getrandbits(10).bit_count()
                wins[one, other] = wins.get((one, other), 0.0) + heads
                wins[other, one] = wins.get((other, one), 0.0) + 10 - heads
            fitted = bradley_terry(wins, "a", planned=600)
            if not all(fitted[name].low <= 0 <= fitted[name].high for name in names):
                wrong += 1
                break
    assert wrong <= 6  # two contrasts at 5 % each
