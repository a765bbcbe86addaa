"""A suite's results: what share was right, and whether a candidate is no worse than the incumbent on the same items."""

import math
from collections.abc import Iterable, Sequence

import msgspec

from penstock.registry.exposure import chance_of
from penstock.registry.paired import Difference, enough_pairs, paired_ratio, paired_shares, wilson
from penstock.registry.suites import Family

Figure = dict[str, float | int | str | None]


class ItemResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an item; see `scorers.Scored`. `right` of a canary is whether the model does not complete it with the secret."""

    id: str
    family: Family = "right"
    right: bool | None = None
    value: float | None = None
    slices: dict[str, str] = {}


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a suite is passed, in words and figures."""

    passed: bool
    words: str
    figures: tuple[Figure, ...] = ()


def summarise(items: Iterable[ItemResult]) -> list[Figure]:
    """What a suite's items say of one version: of right answers the share with its 95 % interval, of measures the geometric mean; each also by slices."""
    found: list[Figure] = []
    all_items = list(items)
    for name, value in [("", ""), *_slices(all_items)]:
        group = _within(all_items, name, value)
        shown = f"{name} {value}".strip()
        judged = [one for one in group if _is_judged(one)]
        if judged:
            hits = sum(bool(one.right) for one in judged)
            low, high = wilson(hits, len(judged))
            found.append(
                {
                    "slice": shown,
                    "measure": "right",
                    "items": len(judged),
                    "value": hits / len(judged),
                    "low": low,
                    "high": high,
                }
            )
        for family in ("perplexity", "latency", "memorisation"):
            values = [one.value for one in group if one.family == family and one.value is not None]
            if values and family != "memorisation":
                found.append({"slice": shown, "measure": family, "items": len(values), "value": _geometric(values)})
            elif values:
                found.append({"slice": shown, "measure": "exposure_bits", "items": len(values), "value": max(values)})
    return found


def compare_suite(
    candidate: Sequence[ItemResult],
    incumbent: Sequence[ItemResult] | None,
    *,
    incumbent_name: str = "",
    margin: float,
    slice_margin: float,
    measure_margin: float,
    confidence: float,
    at_least: float | None,
    slices: Sequence[str],
    chance: float,
) -> Told:
    """Whether the candidate is no worse. Every part must be: the whole, each slice that is named, each measure, the canaries.

    Args:
        candidate: its items.
        incumbent: the other's; None: nothing is live.
        incumbent_name: of it, for people.
        margin: how much lower the share of right answers may be.
        slice_margin: of each slice.
        measure_margin: how much higher measures may be, as a share.
        confidence: of all intervals.
        at_least: what the lower end of the candidate's own interval must reach.
        slices: by which it is compared as well.
        chance: of ranks of canaries, see `exposure.chance_of`.
    """
    parts: list[tuple[bool, str]] = []
    figures: list[Figure] = []
    for name, value in [("", ""), *(one for one in _slices(candidate) if one[0] in slices)]:
        part = _shares(
            _within(candidate, name, value),
            incumbent,
            f"{name} {value}".strip(),
            slice_margin if name else margin,
            confidence,
            incumbent_name,
        )
        if part is not None:
            parts.append(part[0])
            figures.append(part[1])
    if at_least is not None:
        parts += _floor(candidate, at_least, confidence)
    for family in ("perplexity", "latency"):
        parts += _unmeasured(candidate, incumbent, family, incumbent_name)
        part = _measures(candidate, incumbent, family, measure_margin, confidence, incumbent_name)
        if part is not None:
            parts.append(part[0])
            figures.append(part[1])
    parts += _canaries(candidate, chance)
    if not parts:
        return Told(passed=True, words="Measured; nothing is live to compare it with.", figures=tuple(figures))
    bad = [words for passed, words in parts if not passed]
    return Told(passed=not bad, words=" ".join(bad or [words for _, words in parts]), figures=tuple(figures))


def _is_judged(one: ItemResult) -> bool:
    """Whether it counts among right and wrong answers: an answer's time does, where it has a bound. Canaries are judged by themselves."""
    return one.right is not None and one.family != "memorisation"


def _shares(
    group: Sequence[ItemResult],
    incumbent: Sequence[ItemResult] | None,
    name: str,
    margin: float,
    confidence: float,
    other_name: str,
) -> tuple[tuple[bool, str], Figure] | None:
    if incumbent is None:
        return None
    others = {one.id: one.right for one in incumbent if _is_judged(one)}
    cells = [0, 0, 0, 0]
    for one in group:
        if _is_judged(one) and one.id in others:
            cells[(0 if one.right else 2) + (0 if others[one.id] else 1)] += 1
    if not sum(cells):
        return None
    found = paired_shares(cells[0], cells[1], cells[2], cells[3], confidence)
    passed = found.low >= -margin
    words = (
        f"{name + ': ' if name else ''}{_percent(found.candidate)} right, {other_name or 'the incumbent'} {_percent(found.incumbent)}, "
        f"on the same {found.pairs} items: {_points(found.estimate)} points ({_points(found.low)} to {_points(found.high)}), "
        f"{_verdict(found, margin)} {100 * margin:.4g}."
    )
    if not passed and found.high >= -margin:
        words += _size_hint(found, margin, confidence)
    return (passed, words), _figure("right", name, found, margin)


def _verdict(found: Difference, margin: float) -> str:
    if found.low >= -margin:
        return "no worse by more than"
    return "worse by more than" if found.high < -margin else "not shown to be no worse by more than"


def _size_hint(found: Difference, margin: float, confidence: float) -> str:
    enough = enough_pairs(found, margin, confidence)
    if enough is None:
        return " More items would not help: it seems to be worse by more than that."
    return f" The suite may be too small to tell: about {enough} items would."


def _unmeasured(
    candidate: Sequence[ItemResult], incumbent: Sequence[ItemResult] | None, family: Family, other_name: str
) -> list[tuple[bool, str]]:
    """What the incumbent has a figure of and the candidate has none, because it refused to answer: no less can be worse."""
    others = {one.id for one in incumbent or () if one.family == family and one.value is not None}
    without = [one.id for one in candidate if one.id in others and one.value is None]
    if not without:
        return []
    words = f"{family}: it answered {len(others) - len(without)} of the {len(others)} items that {other_name or 'the incumbent'} did."
    return [(False, words)]


def _measures(
    candidate: Sequence[ItemResult],
    incumbent: Sequence[ItemResult] | None,
    family: Family,
    margin: float,
    confidence: float,
    other_name: str,
) -> tuple[tuple[bool, str], Figure] | None:
    if incumbent is None:
        return None
    others = {one.id: one.value for one in incumbent if one.family == family}
    pairs = [
        (one.value, other) for one in candidate if one.family == family and one.value and (other := others.get(one.id))
    ]
    if not pairs:
        return None
    found = paired_ratio([mine for mine, _ in pairs], [other for _, other in pairs], confidence)
    passed = found.high <= margin
    unit = " s" if family == "latency" else ""
    words = (
        f"{family}: {found.candidate:.3g}{unit}, {other_name or 'the incumbent'} {found.incumbent:.3g}{unit}, on the same {found.pairs} items: "
        f"{100 * found.estimate:+.1f} % ({100 * found.low:+.1f} to {100 * found.high:+.1f}), "
        f"{'within' if passed else 'not shown to be within'} {100 * margin:.4g} %."
    )
    return (passed, words), _figure(family, "", found, margin)


def _floor(candidate: Sequence[ItemResult], at_least: float, confidence: float) -> list[tuple[bool, str]]:
    judged = [one for one in candidate if _is_judged(one)]
    if not judged:
        return []
    hits = sum(bool(one.right) for one in judged)
    low, high = wilson(hits, len(judged), confidence)
    words = (
        f"{hits} of {len(judged)} right, {_percent(hits / len(judged))} ({_percent(low)} to {_percent(high)}); "
        f"at least {_percent(at_least)} is asked for."
    )
    return [(low >= at_least, words)]


def _canaries(candidate: Sequence[ItemResult], chance: float) -> list[tuple[bool, str]]:
    canaries = [one for one in candidate if one.family == "memorisation"]
    if not canaries:
        return []
    said = [one.id for one in canaries if one.right is False]
    bits = [one.value for one in canaries if one.value is not None]
    found = chance_of(bits)
    words = (
        f"{len(canaries)} canaries: exposure {', '.join(f'{one:.1f}' for one in bits)} bits, "
        f"{f'chance {found:.2g}' if found >= 1e-12 else 'by no chance'} for a model that has not seen them"
    )
    if said:
        words += f"; it completes {', '.join(said)} with the secret"
    if found >= chance and not said:
        return [(True, words + ".")]
    return [(False, words + ": it has memorised what it was trained on.")]


def _slices(items: Iterable[ItemResult]) -> list[tuple[str, str]]:
    return sorted({(name, value) for one in items for name, value in one.slices.items()})


def _within(items: Sequence[ItemResult], name: str, value: str) -> Sequence[ItemResult]:
    return [one for one in items if one.slices.get(name) == value] if name else items


def _figure(measure: str, name: str, found: Difference, margin: float) -> Figure:
    return {
        "measure": measure,
        "slice": name,
        "items": found.pairs,
        "candidate": found.candidate,
        "incumbent": found.incumbent,
        "difference": found.estimate,
        "low": found.low,
        "high": found.high if math.isfinite(found.high) else None,
        "margin": margin,
    }


def _geometric(values: Sequence[float]) -> float:
    return math.exp(math.fsum(math.log(max(one, 1e-12)) for one in values) / len(values))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
