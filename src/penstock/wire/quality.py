"""How an engine tells a gateway what it saw of an answer's quality: an extension of OpenAI's API that our engine speaks.

A request with the header field `x-penstock-quality`, whose value is a JSON list of RE2 patterns, gets back
`SCORED LOGPROB TRIGRAMS REPEATED REFUSED`: in the field of that name if the answer is one document, in a line `:quality ...` before
the data of the event that tells the usage if it is a stream. To everybody else that line is a comment.
"""

import math

import msgspec

from penstock.core.exchange import Quality

HEADER = b"x-penstock-quality"
MOST_PATTERN_BYTES = 4096

_MARK = b":quality "
_MOST = 1 << 40  # beyond it a number is a lie, not a count


def asking(patterns: tuple[str, ...]) -> bytes:
    """The header line that asks for it, an answer in which one of `patterns` is found being a refusal.

    Raises:
        ValueError: if the patterns are too long for a header field.
    """
    text = msgspec.json.encode(patterns).decode()
    value = "".join(c if c < "\x7f" else _escaped(c) for c in text).encode()
    if len(value) > MOST_PATTERN_BYTES:
        raise ValueError(f"the patterns of refusals take {len(value)} bytes, of at most {MOST_PATTERN_BYTES}")
    return b"%b: %b\r\n" % (HEADER, value)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


_patterns = msgspec.json.Decoder(tuple[str, ...]).decode


def patterns_of(value: bytes) -> tuple[str, ...]:
    """The patterns that a request's field holds.

    Raises:
        ValueError: if it is no list of texts, or too long.
    """
    if len(value) > MOST_PATTERN_BYTES:
        raise ValueError(f"it has {len(value)} bytes, of at most {MOST_PATTERN_BYTES}")
    return _patterns(value)


def quality_value(quality: Quality) -> bytes:
    """`quality` as it is told."""
    return b"%d %b %d %d %d" % (
        quality.scored,
        repr(quality.logprob).encode(),
        quality.trigrams,
        quality.repeated,
        quality.refused,
    )


def quality_line(quality: Quality) -> bytes:
    """The line that tells `quality` within an event."""
    return _MARK + quality_value(quality) + b"\n"


def quality_of(value: bytes | None) -> Quality | None:
    """What `value` tells; None if it is nothing, or numbers that cannot be."""
    if value is None:
        return None
    try:
        scored, logprob, trigrams, repeated, refused = value.split()
        told = Quality(int(scored), float(logprob), int(trigrams), int(repeated), refused != b"0")
    except ValueError:
        return None
    sane = 0 <= told.scored < _MOST and 0 <= told.repeated <= told.trigrams < _MOST
    return told if sane and math.isfinite(told.logprob) and told.logprob <= 0 else None


def take_quality(event: bytes) -> tuple[bytes, Quality | None]:
    """An event without the line that tells its answer's quality, and what the line says."""
    if not event.startswith(_MARK):
        return event, None
    line, _, rest = event.partition(b"\n")
    return rest, quality_of(line[len(_MARK) :])
