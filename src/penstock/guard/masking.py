"""Replaces personal data in texts that are kept, with the detectors of the content rules."""

import functools
from collections.abc import Sequence

from penstock.core.snapshot import Detectable, Policy, Rule
from penstock.guard.rules import Scanner

_BETWEEN = "\x1f"  # no detector's match reaches across it, and none is changed by it


class Masker:
    """Replaces what the detectors in `kinds` find by their names in brackets. Immutable."""

    __slots__ = ("_scanner",)

    def __init__(self, kinds: Sequence[Detectable]) -> None:
        rules = [Rule(name=kind, detect=kind, do="mask") for kind in dict.fromkeys(kinds)]
        self._scanner = Scanner(rules, "input") if rules else None

    def clean(self, texts: list[str]) -> bool:
        """Whether nothing is found in any of the texts, after one pass over all of them."""
        scanner = self._scanner
        return scanner is None or scanner.clean(_BETWEEN.join(texts).encode("utf-8", "surrogatepass"))

    def mask(self, texts: list[str]) -> list[str]:
        """The texts, masked; the list itself if nothing is found in any."""
        scanner = self._scanner
        if scanner is None or self.clean(texts):
            return texts
        return [scanner.scan(text).text for text in texts]


@functools.cache
def usual_masker() -> Masker:
    """The masker of a policy that does not say what is masked."""
    return Masker(Policy(name="").capture_mask)
