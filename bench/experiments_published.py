"""Published numbers, to four digits: the shipped functions against what papers and other programs print."""

import math

from bench.checks import Check, Measured, close
from penstock.experiments.assignment import spans_by_weight
from penstock.experiments.bradley_terry import bradley_terry
from penstock.experiments.hashing import bucket
from penstock.experiments.sample_size import two_means, two_proportions
from penstock.experiments.sequences import best_rho, multinomial_log_e, normal_mixture_bound, sample_ratio_p
from penstock.experiments.statistics import estimate, moments_of, welch

FOUR_DIGITS = 5e-5

# packages/sdk-js/test/cases.json of growthbook/growthbook, "hash": seed, value, version, result
GROWTHBOOK = (
    ("", "a", 1, 0.22),
    ("", "b", 1, 0.077),
    ("b", "a", 1, 0.946),
    ("ef", "d", 1, 0.652),
    ("asdf", "8952klfjas09ujk", 1, 0.549),
    ("", "123", 1, 0.011),
    ("", '___)((*":&', 1, 0.563),
    ("seed", "a", 2, 0.0505),
    ("seed", "b", 2, 0.2696),
    ("foo", "ab", 2, 0.2575),
    ("foo", "def", 2, 0.2019),
    ("89123klj", "8952klfjas09ujkasdf", 2, 0.124),
    ("90850943850283058242805", "123", 2, 0.7516),
    ("()**(%$##$%#$#", '___)((*":&', 2, 0.0128),
)
# The same file, "getBucketRange", at full coverage: weights, ranges
RANGES = (
    ((0.5, 0.5), ((0.0, 0.5), (0.5, 1.0))),
    ((0.4, 0.1, 0.5), ((0.0, 0.4), (0.4, 0.5), (0.5, 1.0))),
    ((1 / 3, 1 / 3, 1 / 3), ((0.0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1.0))),
)
# Student 1908, "The probable error of a mean", Biometrika 6: hours of sleep gained by two drugs.
# R: t.test(extra ~ group, sleep) says t = -1.8608, df = 17.776 for first minus second.
SLEEP = (
    (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0),
    (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4),
)
# README.md of avito-tech/abito: ratios of sums by the delta method; numerators, denominators
RATIOS = (((1, 2, 8), (4, 5, 10)), ((1, 2, 3), (4, 5, 6)))
# Stigler 1994, "Citation patterns in the journals of statistics and probability", Statistical Science 9: cited by row, citing by column.
JOURNALS = ("Biometrika", "Communications in Statistics", "JASA", "JRSS-B")
CITATIONS = ((714, 730, 498, 221), (33, 425, 68, 17), (320, 813, 1072, 142), (284, 276, 325, 188))
STRENGTHS = (0.0, -2.949, -0.4796, 0.2690)


def _figures(found: list[float], wanted: list[float], tolerance: float = FOUR_DIGITS) -> Measured:
    return Measured(", ".join(f"{value:.7g}" for value in found), close(found, wanted, tolerance))


def growthbook_hash(_seed: int, _part: float) -> Measured:
    right = sum(bucket(seed, value, version) == wanted for seed, value, version, wanted in GROWTHBOOK)
    return Measured(
        f'{right} of {len(GROWTHBOOK)} cases, hash("seed", "a", v2) = {bucket("seed", "a", 2)}', right == 14
    )


def growthbook_ranges(_seed: int, _part: float) -> Measured:
    right = 0
    for weights, wanted in RANGES:
        found = [edge for spans in spans_by_weight(weights) for span in spans for edge in span]
        right += all(math.isclose(a, b, abs_tol=1e-9) for a, b in zip(found, sum(wanted, ()), strict=True))
    return Measured(f"{right} of {len(RANGES)} cases", right == len(RANGES))


def sleep(_seed: int, _part: float) -> Measured:
    first, second = (estimate(moments_of((round(v * 10), 1) for v in drug), 0.1) for drug in SLEEP)
    assert first is not None
    assert second is not None
    found = welch(first, second)
    return _figures([found.difference, found.t, found.freedom], [1.58, 1.8608, 17.776])


def delta_method(_seed: int, _part: float) -> Measured:
    control, treatment = (estimate(moments_of(zip(tops, bottoms, strict=True))) for tops, bottoms in RATIOS)
    assert control is not None
    assert treatment is not None
    found = welch(control, treatment)
    return _figures(
        [math.sqrt(treatment.variance), found.difference, found.error, found.t],
        [0.06928203230275506, -0.1789473684210527, 0.18874291696797746, -0.9481011064982815],
        1e-12,
    )


def boundary(_seed: int, _part: float) -> Measured:
    rho = best_rho(100, 0.05)
    bound = normal_mixture_bound(100, 0.05, rho)
    written_out = math.sqrt((100 + rho) * math.log((100 + rho) / (0.05**2 * rho)))  # Howard et al. 2021, equation 14
    return _figures([rho, bound], [12.60056, written_out])


def mismatch(_seed: int, _part: float) -> Measured:
    """Fabijan et al. 2019, "Diagnosing sample ratio mismatch in online controlled experiments", KDD."""
    p = sample_ratio_p((821_588, 815_482), (0.5, 0.5))
    return Measured(f"p = {p:.3g}", f"{p:.2e}" == "1.82e-06")


def two_cells(_seed: int, _part: float) -> Measured:
    """A beta-binomial Bayes factor in closed form: 7 of 10 against one half with a flat prior, B(8, 4) 2^10."""
    found = multinomial_log_e((7, 3), (0.5, 0.5), 2.0)
    return _figures([found], [math.log(math.gamma(8) * math.gamma(4) / math.gamma(12) * 2**10)], 1e-9)


def sizes(_seed: int, _part: float) -> Measured:
    """By G*Power, statsmodels and Evan Miller's calculator."""
    found = [two_proportions(0.2, 0.25, pooled=False), math.ceil(two_proportions(0.2, 0.25)), two_means(0.5)]
    return Measured(
        f"{found[0]:.1f}, {found[1]:.0f}, {found[2]:.2f} an arm",
        round(found[0]) == 1030 and found[1] == 1094 and round(found[2], 2) == 63.77,
    )


def citations(_seed: int, _part: float) -> Measured:
    wins = {
        (one, other): float(CITATIONS[row][column])
        for row, one in enumerate(JOURNALS)
        for column, other in enumerate(JOURNALS)
    }
    fitted = bradley_terry(wins, "Biometrika")
    found = [fitted[name].value for name in JOURNALS]
    return Measured(
        ", ".join(f"{value:.4f}" for value in found),
        all(abs(one - other) < max(6e-5, 1.7e-4 * abs(other)) for one, other in zip(found, STRENGTHS, strict=True)),
    )


CHECKS = [
    Check("published: GrowthBook's hash", "all cases, 0.0505 among them", growthbook_hash),
    Check("published: GrowthBook's bucket ranges", "all cases", growthbook_ranges),
    Check("published: Welch on Student's sleep data", "1.58, 1.8608, 17.776", sleep),
    Check("published: delta method, abito's ratios", "0.069282, -0.178947, 0.188743, -0.948101", delta_method),
    Check("published: normal mixture, best rho and bound at V=100", "12.60056, as written out", boundary),
    Check("published: sample ratio 821,588 against 815,482", "1.82e-6", mismatch),
    Check("published: multinomial martingale, closed form", "log B(8, 4) 2^10", two_cells),
    Check("published: sample sizes", "1,030, 1,094, 63.77", sizes),
    Check("published: Bradley-Terry on Stigler's citations", "0, -2.949, -.4796, .2690", citations),
]
