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


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """Content, opened, or why it cannot be."""

    state: str
    why: str = ""
    messages: tuple[Asked, ...] = ()
    replies: tuple[Answered, ...] = ()
    masked: bool = False
    cut: bool = False
    destroyed_at: float | None = None
