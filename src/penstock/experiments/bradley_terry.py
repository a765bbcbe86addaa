"""Bradley-Terry: how strong each of several models is, from which of two was preferred, with intervals that hold while you watch.

The chance that A is preferred to B is 1 / (1 + exp(strength of B - strength of A)) (Bradley and Terry 1952, Biometrika 39). The fit is
Hunter's minorisation (2004, "MM algorithms for generalized Bradley-Terry models", Annals of Statistics 32, section 3), which climbs at
every step. On Stigler's citations (1994, Statistical Science 9) it gives Biometrika 0, Communications in
Statistics -2.949, JASA -.4796, JRSS-B .2690.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from penstock.experiments.sequences import radius

Wins = Mapping[tuple[str, str], float]
"""How often the first was preferred to the second; a tie is half a win of each."""

_LEAST = 20  # comparisons, before an interval of several models is given


class Strength(NamedTuple):
    """Of one model: the logarithm of its odds against the reference, and the ends of its confidence sequence."""

    value: float
    low: float
    high: float


def bradley_terry(wins: Wins, reference: str, *, alpha: float = 0.05, planned: int = 1000) -> dict[str, Strength]:
    """Each model's strength relative to `reference`, whose own is 0.

    The intervals are asymptotic confidence sequences of the fit's contrasts, narrowest at `planned` comparisons. A strength is infinite
    where one model won all of its comparisons or none: then there is no finite fit.

    Raises:
        ValueError: if `reference` was compared with nobody, or a count is negative.
    """
    names = sorted({name for pair in wins for name in pair})
    if reference not in names:
        raise ValueError(f"{reference!r} was compared with nobody")
    if any(count < 0 for count in wins.values()):
        raise ValueError("a number of wins is negative")
    total = sum(count for (one, other), count in wins.items() if one != other)
    if total <= 0:
        raise ValueError("nothing was compared")
    beaten = _matrix(names, wins)
    if not _connected(beaten):
        return {name: _one_sided(names.index(name), names.index(reference), beaten) for name in names}
    values = _fit(beaten)
    variances = _contrast_variances(values, beaten, names.index(reference))
    zero = values[names.index(reference)]
    found = {}
    for index, name in enumerate(names):
        value = values[index] - zero
        if name == reference:
            found[name] = Strength(0.0, 0.0, 0.0)
        elif total < _LEAST:
            found[name] = Strength(value, -math.inf, math.inf)
        else:
            reach = radius(variances[index], round(total), planned, alpha)
            found[name] = Strength(value, value - reach, value + reach)
    return found


def _matrix(names: list[str], wins: Wins) -> list[list[float]]:
    places = {name: index for index, name in enumerate(names)}
    beaten = [[0.0] * len(names) for _ in names]
    for (one, other), count in wins.items():
        if one != other:
            beaten[places[one]][places[other]] += count
    return beaten


def _connected(beaten: list[list[float]]) -> bool:
    """Whether everybody was beaten, directly or by way of others, by everybody else: then there is a finite fit (Ford 1957)."""
    for turned in (False, True):
        reached, front = {0}, [0]
        while front:
            here = front.pop()
            for there in range(len(beaten)):
                count = beaten[there][here] if turned else beaten[here][there]
                if count > 0 and there not in reached:
                    reached.add(there)
                    front.append(there)
        if len(reached) < len(beaten):
            return False
    return True


def _one_sided(index: int, reference: int, beaten: list[list[float]]) -> Strength:
    """What can be said of a model where no finite fit is: which way its comparisons with the reference went, if all went one way."""
    won, lost = beaten[index][reference], beaten[reference][index]
    if index == reference:
        return Strength(0.0, 0.0, 0.0)
    value = math.inf if won > 0 and lost == 0 else -math.inf if lost > 0 and won == 0 else 0.0
    if won > 0 and lost > 0:
        value = math.log(won / lost)
    return Strength(value, -math.inf, math.inf)


def _fit(beaten: list[list[float]]) -> list[float]:
    count = len(beaten)
    weights = [1.0] * count
    won = [sum(row) for row in beaten]
    met = [[beaten[i][j] + beaten[j][i] for j in range(count)] for i in range(count)]
    for _ in range(10_000):
        after = [
            won[i] / sum(met[i][j] / (weights[i] + weights[j]) for j in range(count) if met[i][j]) for i in range(count)
        ]
        scale = math.exp(sum(math.log(weight) for weight in after) / count)
        after = [weight / scale for weight in after]
        moved = max(abs(math.log(new / old)) for new, old in zip(after, weights, strict=True))
        weights = after
        if moved < 1e-13:
            break
    return [math.log(weight) for weight in weights]


def _contrast_variances(values: list[float], beaten: list[list[float]], reference: int) -> list[float]:
    """Of each strength's difference from the reference: the inverse of the Fisher information without the reference's row."""
    kept = [index for index in range(len(values)) if index != reference]
    information = [[0.0] * len(kept) for _ in kept]
    for row, i in enumerate(kept):
        for j in range(len(values)):
            met = beaten[i][j] + beaten[j][i]
            if i == j or not met:
                continue
            p = 1 / (1 + math.exp(values[j] - values[i]))
            information[row][row] += met * p * (1 - p)
            if j != reference:
                information[row][kept.index(j)] -= met * p * (1 - p)
    inverse = _inverse(information)
    variances = [0.0] * len(values)
    for row, i in enumerate(kept):
        variances[i] = inverse[row][row]
    return variances


def _inverse(matrix: list[list[float]]) -> list[list[float]]:
    """Of a small, symmetric, positive definite matrix, by Gauss and Jordan."""
    size = len(matrix)
    rows = [[*row, *(1.0 if i == j else 0.0 for j in range(size))] for i, row in enumerate(matrix)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(rows[row][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        lead = rows[column][column]
        rows[column] = [value / lead for value in rows[column]]
        for row in range(size):
            if row != column and rows[row][column]:
                factor = rows[row][column]
                rows[row] = [value - factor * at for value, at in zip(rows[row], rows[column], strict=True)]
    return [row[size:] for row in rows]
