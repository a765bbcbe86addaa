"""How a gateway has one replica go on with the answer that another one broke off: an extension of OpenAI's API that our engine speaks.

A request with the header field `x-penstock-resume: tell` gets, before the data of an event that brings text, one more line in the same
event: `:ids SENT TOKEN TOKEN ...`, the tokens that came since the last such line and how many characters of text the stream has brought
with this event. To everybody else that line is a comment. A request with `x-penstock-resume: continue` names in its member
`penstock_continue` what has come so far, and is answered with what comes after it, told in the same way. An engine that does either
says so with the same field in its answer's head.
"""

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]

HEADER = b"x-penstock-resume"
TELL = b"tell"
CONTINUE = b"continue"
MEMBER = "penstock_continue"

_MARK = b":ids "
_LATER = b"\n" + _MARK  # JSON holds no line ends: this is never part of a text


class Continuation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What has come of an answer.

    Attributes:
        id, created: the stream's own, which its events go on to bear.
        tokens: all that are known, in order.
        sent: characters of text that the client has; those after it that `tokens` make are still to come.
        ended: the client knows why the answer ended; what is missing is the usage.
    """

    id: str
    created: Count
    tokens: list[int] = []
    sent: Count = 0
    ended: bool = False


class Head(msgspec.Struct, frozen=True):
    """What all events of a stream have in common."""

    id: str = ""
    created: int = 0


decode_head = msgspec.json.Decoder(Head).decode


def ids_line(sent: int, tokens: list[int]) -> bytes:
    """The line that tells `tokens`."""
    return f":ids {sent} {' '.join(map(str, tokens))}\n".encode()


def without_ids(data: bytes) -> tuple[bytes, list[bytes]]:
    """Whole events without the lines that tell tokens, and what these say: `SENT TOKEN TOKEN ...`. Nothing is decoded."""
    if data.startswith(_MARK):
        end = data.index(b"\n")
        rest = data[end + 1 :]
        if _LATER not in rest:
            return rest, [data[len(_MARK) : end]]
    elif _LATER not in data:
        return data, []
    first, *others = (b"\n" + data).split(_LATER)
    lines, kept = [], [first]
    for other in others:
        line, _, rest = other.partition(b"\n")
        lines.append(line)
        kept.append(rest)
    return b"\n".join(kept)[1:], lines
