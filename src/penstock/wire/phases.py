"""How an engine tells a gateway how long its phases took: an extension of OpenAI's API that our engine speaks.

A request with the header field `x-penstock-phases: tell` gets back a JSON array, `[PREPROCESS,QUEUE,PREFILL,DECODE,POSTPROCESS]`, nanoseconds: in the field of
that name if the answer is one document, in a line `:phases [...]` before the data of the event that tells the usage if it is a stream. To everybody else that
line is a comment.
"""

import msgspec

from penstock.core.engine_phases import EnginePhases

HEADER = b"x-penstock-phases"
ASK = b"x-penstock-phases: tell\r\n"  # the header line that asks for it

_MARK = b":phases "
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(EnginePhases).decode


def phases_value(phases: EnginePhases) -> bytes:
    """`phases` as they are told."""
    return _encode(phases)


def phases_line(phases: EnginePhases) -> bytes:
    """The line that tells `phases` within an event."""
    return _MARK + _encode(phases) + b"\n"


def phases_of(value: bytes | None) -> EnginePhases | None:
    """What `value` tells; None if it is nothing, or numbers that cannot be."""
    if value is None:
        return None
    try:
        return _decode(value)
    except (ValueError, RecursionError):
        return None


def take_phases(event: bytes) -> tuple[bytes, EnginePhases | None]:
    """An event without the line that tells the engine's phases, and what the line says."""
    if not event.startswith(_MARK):
        return event, None
    line, _, rest = event.partition(b"\n")
    return rest, phases_of(line[len(_MARK) :])
