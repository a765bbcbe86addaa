"""CUPED: what a unit did before the experiment explains part of what it does now, and that part is taken out.

Deng, Xu, Kohavi and Walker 2013, "Improving the sensitivity of online controlled experiments by utilizing pre-experiment data" (WSDM),
equations 4 and 5, on the delta method's linearised values for ratios. The covariate is from before the assignment, so its mean is the same
in both arms and the difference stays without bias; the coefficient is common to both arms, and estimated from within them.
"""

from penstock.experiments.counted import Layer
from penstock.experiments.statistics import Estimate

_LEAST = 1e-6  # of a variance: what is left where the past explains all


def adjusted(
    control: tuple[Layer, Estimate], treatment: tuple[Layer, Estimate], scale: float
) -> tuple[Estimate, Estimate]:
    """Both estimates without what the covariate explains; unchanged if it does not vary.

    Args:
        control: its sums, and its estimate without adjustment.
        treatment: the same.
        scale: what one numerator over one denominator is worth.
    """
    both = (control[0], treatment[0])
    squares = [_squares(layer) for layer in both]
    if sum(squares) <= 0:
        return control[1], treatment[1]
    products = [_products(layer) * scale for layer in both]
    slope = sum(products) / sum(squares)
    units = sum(layer.moments.units for layer in both)
    centre = sum(layer.past for layer in both) / units
    found = []
    for (layer, plain), square, product in zip((control, treatment), squares, products, strict=True):
        count = layer.moments.units
        spared = (2 * slope * product - slope * slope * square) / (count - 1) / count
        found.append(
            Estimate(
                plain.value - slope * (layer.past / count - centre),
                max(plain.variance - spared, plain.variance * _LEAST),
                plain.units,
            )
        )
    return found[0], found[1]


def _squares(layer: Layer) -> float:
    """The sum of squared deviations of the covariate from its mean."""
    count = layer.moments.units
    return (layer.past_past * count - layer.past * layer.past) / count


def _products(layer: Layer) -> float:
    """The sum of the products of linearised value and covariate; the former has mean 0."""
    moments = layer.moments
    cross = layer.top_past * moments.bottom - moments.top * layer.bottom_past
    return cross * moments.units / (moments.bottom * moments.bottom)
