"""Patterns in RE2 (https://github.com/google/re2): the time that they take grows with the text alone, whoever wrote them."""

from collections.abc import Callable

import re2

from penstock.core.errors import BadRequest


def bounded_options(max_memory: int) -> re2.Options:
    """Options under which a pattern may take `max_memory` bytes, compiled and while it searches; groups are not kept."""
    options = re2.Options()
    options.max_mem = max_memory
    options.log_errors = False
    options.never_capture = True
    return options


def compile_pattern(pattern: str, max_memory: int) -> "re2._Regexp":
    """`pattern`, to be searched in UTF-8.

    Raises:
        BadRequest: if RE2 refuses it, or it needs more than `max_memory` bytes; code `bad_pattern`.
    """
    try:
        return re2.compile(pattern.encode(), bounded_options(max_memory))
    except re2.error as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise BadRequest(f"RE2 refuses {pattern[:200]!r}: {reason}.", code="bad_pattern") from None


First = Callable[[bytes, int], tuple[int, int]]
_ANYWHERE = re2._Anchor.UNANCHORED  # noqa: SLF001 - see `first_match`


def first_match(pattern: "re2._Regexp") -> First:
    """A function of a text and a place in it: where the first match from there on begins and ends, in bytes; (-1, -1) if there is none.

    It asks RE2 itself: the object that the package makes of a match takes longer than the search.
    """
    find = pattern._regexp.Match  # noqa: SLF001 - nothing public comes without that object

    def first(text: bytes, start: int) -> tuple[int, int]:
        span: tuple[int, int] = find(_ANYWHERE, text, start, len(text))[0]
        return span

    return first
