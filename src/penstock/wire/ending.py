"""What the end of an answer tells: usage and finish reason."""

from penstock.core.exchange import Usage
from penstock.wire.answer import Choice, WireUsage

_MOST_TOKENS = 1 << 40  # beyond it a number is a lie, not a count


def usage_of(wire: WireUsage | None) -> Usage | None:
    """The usage that `wire` tells; None if it tells none, or numbers that cannot be."""
    if wire is None:
        return None
    prompt, completion = wire.prompt_tokens, wire.completion_tokens or 0
    details = wire.prompt_tokens_details
    cached = (details.cached_tokens or 0) if details is not None else 0
    if not (0 <= prompt < _MOST_TOKENS and 0 <= completion < _MOST_TOKENS and 0 <= cached <= prompt):
        return None
    return Usage(prompt, completion, cached)


def finish_of(choices: list[Choice]) -> str:
    """The finish reason of the first choice that has one, else ""."""
    for choice in choices:
        if choice.finish_reason:
            return choice.finish_reason
    return ""
