"""What the API tells of content."""

import msgspec


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """That content of a request is kept."""

    bytes: int = 0
    masked: bool = False
    cut: bool = False


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A text of the request."""

    role: str
    text: str


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A text of the answer."""

    index: int
    field: str
    text: str


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """Texts of feedback or of a report, opened, or why they cannot be."""

    kind: str
    at: float
    state: str
    why: str = ""
    text: str = ""
    corrected: str = ""


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """Content, opened, or why it cannot be."""

    state: str
    why: str = ""
    messages: tuple[Asked, ...] = ()
    replies: tuple[Answered, ...] = ()
    texts: tuple[Text, ...] = ()
    masked: bool = False
    cut: bool = False
    destroyed_at: float | None = None
