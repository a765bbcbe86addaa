"""From a route to a pool: a weighted draw."""

from penstock.core.errors import NotFound
from penstock.core.snapshot import Route, Target


def choose_target(route: Route, draw: float) -> Target:
    """The target whose share of the summed weights `draw` falls into.

    Args:
        route: targets with weights of any scale; a weight of 0 takes nothing.
        draw: uniform in [0, 1): drawn at random, or hashed from a unit to be sticky.

    Raises:
        NotFound: if the route has no target with a weight above 0.
    """
    targets = route.to
    if len(targets) == 1 and targets[0].weight > 0:
        return targets[0]
    total = 0.0
    for target in targets:
        total += target.weight
    left = draw * total
    chosen = None
    for target in targets:
        if target.weight <= 0:
            continue
        chosen = target
        left -= target.weight
        if left < 0:
            return target
    if chosen is None:
        raise NotFound(f"The route {route.name!r} leads nowhere: no target has a weight above 0.", code="route_empty")
    return chosen
