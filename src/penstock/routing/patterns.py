"""Several patterns that are looked for in one text."""

from collections.abc import Sequence

from penstock.core.patterns import compile_pattern

_MAX_MEMORY = 8 * 1024 * 1024


class Patterns:
    """Several patterns, each searched for anywhere in a text.

    Raises:
        BadRequest: if RE2 refuses one.
    """

    __slots__ = ("_compiled",)

    def __init__(self, patterns: Sequence[str]) -> None:
        self._compiled = [compile_pattern(pattern, _MAX_MEMORY) for pattern in patterns]

    def __bool__(self) -> bool:
        return bool(self._compiled)

    def found_in(self, text: str) -> bool:
        """Whether one of them is found in `text`."""
        data = text.encode("utf-8", "surrogatepass")
        return any(pattern.search(data) is not None for pattern in self._compiled)
