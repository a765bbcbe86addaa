"""A few looks instead of always: O'Brien-Fleming's test by alpha spending.

Whoever agrees beforehand to look `looks` times loses hardly any power to the looking. The chance of a wrong call in one
direction that may be spent by a share `t` of the planned size is 2 - 2 Phi(z / sqrt(t)), z being the normal quantile of half that direction's
part of alpha (Lan and DeMets 1983, "Discrete sequential boundaries for clinical trials", Biometrika 70, the spending function of O'Brien and
Fleming's type). The boundary of each look spends what is new, by numerical
integration over where the statistic may stand (Armitage, McPherson and Rowe 1969; Jennison and Turnbull 2000, "Group Sequential Methods",
chapter 19). Five even looks at alpha .05 give 4.8769, 3.3569, 2.6803, 2.2898, 2.0310.
"""

import math
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NORMAL = NormalDist()
_FARTHEST = (
    9.0  # standard deviations beyond which nothing is: a look that may spend less than that leaves out never stops
)
_STEPS = 400  # of the grid between a look's boundaries


def spent(fraction: float, alpha: float) -> float:
    """How much of `alpha`, over both directions, may be used up by this share of the planned size."""
    if fraction <= 0:
        return 0.0
    if fraction >= 1:
        return alpha
    return 4 * _NORMAL.cdf(-_NORMAL.inv_cdf(1 - alpha / 4) / math.sqrt(fraction))


@lru_cache(maxsize=256)
def boundaries(fractions: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """How far from 0 the standardised difference must be at each look, two-sided.

    Args:
        fractions: of the planned size at the looks until now, rising; above 1 counts as 1.
        alpha: the chance of a wrong call over all looks.

    Raises:
        ValueError: if the fractions do not rise, or are not above 0.
    """
    if not fractions or fractions[0] <= 0 or any(one >= other for one, other in pairwise(fractions)):
        raise ValueError(f"the looks {fractions} must rise from above 0")
    found: list[float] = []
    grid: _Grid | None = None
    before = 0.0
    for fraction in fractions:
        allowed = spent(fraction, alpha) - before
        before += allowed
        if grid is None:
            bound = -_NORMAL.inv_cdf(allowed / 2) if allowed > 2 * _NORMAL.cdf(-_FARTHEST) else _FARTHEST
            grid = _Grid.first(fraction, bound)
        else:
            bound = _bound(grid, fraction, allowed)
            grid = grid.moved(fraction, bound)
        found.append(bound)
    return tuple(found)


def power(fractions: tuple[float, ...], alpha: float, drift: float) -> float:
    """The chance that one of the looks crosses its boundary, where the standardised difference at the full size has mean `drift`."""
    bounds = boundaries(fractions, alpha)
    grid: _Grid | None = None
    crossed = 0.0
    for fraction, bound in zip(fractions, bounds, strict=True):
        crossed += (
            1 - _NORMAL.cdf(bound - drift * math.sqrt(fraction)) + _NORMAL.cdf(-bound - drift * math.sqrt(fraction))
            if grid is None
            else grid.beyond(fraction, bound, drift)
        )
        grid = _Grid.first(fraction, bound, drift) if grid is None else grid.moved(fraction, bound, drift)
    return crossed


@lru_cache(maxsize=256)
def inflation(looks: int, alpha: float, wanted: float) -> float:
    """How many times the units of one fixed look `looks` even looks need for the same power."""
    if looks == 1:
        return 1.0
    fractions = even(looks)
    fixed = _NORMAL.inv_cdf(1 - alpha / 2) + _NORMAL.inv_cdf(wanted)
    low, high = fixed, 2 * fixed
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if power(fractions, alpha, middle) < wanted else (low, middle)
    return (high / fixed) ** 2


def even(looks: int) -> tuple[float, ...]:
    """The shares of the planned size at which evenly spaced looks are."""
    return tuple((number + 1) / looks for number in range(looks))


class _Grid:
    """Where the statistic (a Brownian motion at `time`) may be, given that no boundary was crossed yet: a density on even points."""

    def __init__(self, time: float, points: "NDArray[np.float64]", masses: "NDArray[np.float64]") -> None:
        self.time = time
        self._points = points
        self._masses = masses  # of density times the width that each point stands for (Simpson's rule)

    @staticmethod
    def first(fraction: float, bound: float, drift: float = 0.0) -> "_Grid":
        """After the first look."""
        points, widths = _simpson(bound * math.sqrt(fraction))
        density = _normal((points - drift * fraction) / math.sqrt(fraction)) / math.sqrt(fraction)
        return _Grid(fraction, points, density * widths)

    def moved(self, fraction: float, bound: float, drift: float = 0.0) -> "_Grid":
        """After the next look."""
        points, widths = _simpson(bound * math.sqrt(fraction))
        step = math.sqrt(fraction - self.time)
        moves = (points[:, None] - self._points[None, :] - drift * step * step) / step
        density = (_normal(moves) @ self._masses) / step
        return _Grid(fraction, points, density * widths)

    def beyond(self, fraction: float, bound: float, drift: float = 0.0) -> float:
        """The chance that the next look is the first to cross."""
        from scipy.special import ndtr  # half a second of imports that starting a process need not pay

        edge, step = bound * math.sqrt(fraction), math.sqrt(fraction - self.time)
        centre = self._points + drift * step * step
        return float((self._masses * (ndtr((centre - edge) / step) + ndtr((-edge - centre) / step))).sum())


def _bound(grid: _Grid, fraction: float, allowed: float) -> float:
    low, high = 0.0, _FARTHEST
    if grid.beyond(fraction, high) >= allowed:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if grid.beyond(fraction, middle) > allowed else (low, middle)
    return high


def _simpson(edge: float) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    import numpy as np

    points = np.linspace(-edge, edge, _STEPS + 1)
    weights = np.ones(_STEPS + 1)
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    return points, weights * (2 * edge / _STEPS / 3)


def _normal(values: Any) -> Any:
    import numpy as np

    return np.exp(-0.5 * values * values) / math.sqrt(2 * math.pi)
