"""Patterns in RE2: their time grows with the text alone, whatever they are."""

from collections.abc import Sequence

import re2

from penstock.core.errors import BadRequest

_MAX_MEMORY = 8 * 1024 * 1024


class Patterns:
    """Several patterns, each searched for anywhere in a text.

    Raises:
        BadRequest: if RE2 refuses one.
    """

    __slots__ = ("_compiled",)

    def __init__(self, patterns: Sequence[str]) -> None:
        self._compiled = [_compile(pattern) for pattern in patterns]

    def __bool__(self) -> bool:
        return bool(self._compiled)

    def found_in(self, text: str) -> bool:
        """Whether one of them is found in `text`."""
        data = text.encode("utf-8", "surrogatepass")
        return any(pattern.search(data) is not None for pattern in self._compiled)


def _compile(pattern: str) -> "re2._Regexp":
    options = re2.Options()
    options.max_mem = _MAX_MEMORY
    options.log_errors = False
    options.never_capture = True
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise BadRequest(f"RE2 refuses {pattern[:200]!r}: {reason}.", code="bad_pattern") from None
