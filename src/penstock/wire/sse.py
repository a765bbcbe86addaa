"""Server-sent events over bytes: an incremental splitter and an encoder (WHATWG HTML, section 9.2, what LLM APIs use of it)."""

DONE = b"data: [DONE]\n\n"


class EventSplitter:
    """Cuts a byte stream into whole events, however the network cut it into pieces.

    An event is given with its terminating blank line; line ends may be LF or CRLF. What has not been terminated yet
    is kept, up to `max_event_bytes`.
    """

    __slots__ = ("_max", "_rest")

    def __init__(self, max_event_bytes: int = 1048576) -> None:
        self._rest = b""
        self._max = max_event_bytes

    @property
    def rest(self) -> bytes:
        """The bytes of an event whose end has not been seen."""
        return self._rest

    def whole(self, data: bytes) -> bytes:
        """All events that `data` completes, as one piece of bytes, b"" if it completes none.

        Raises:
            ValueError: if an event grows beyond the limit.
        """
        if self._rest:
            data = self._rest + data
        if data.endswith(b"\n\n"):
            self._rest = b""
            return data
        plain, crlf = data.rfind(b"\n\n"), data.rfind(b"\n\r\n")
        cut = max(plain + 2 if plain >= 0 else 0, crlf + 3 if crlf >= 0 else 0)
        self._rest = data[cut:]
        if len(self._rest) > self._max:
            raise ValueError(f"a server-sent event is longer than {self._max} bytes")
        return data[:cut]

    def feed(self, data: bytes) -> list[bytes]:
        """The events that `data` completes, each with its blank line.

        Raises:
            ValueError: if an event grows beyond the limit.
        """
        return split_events(self.whole(data))


def split_events(data: bytes) -> list[bytes]:
    """`data`, which ends with a blank line or is empty, cut into events."""
    if not data:
        return []
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    events = data.split(b"\n\n")
    return [event + b"\n\n" for event in events if event]


def event_data(event: bytes) -> bytes:
    """The data of one event: the values of its `data:` lines, joined by line feeds; b"" if it has none (a comment)."""
    if event.startswith(b"data: ") and event.find(b"\n") >= len(event) - 2:
        return event[6:].rstrip(b"\r\n")
    values = []
    for line in event.replace(b"\r\n", b"\n").split(b"\n"):
        if line.startswith(b"data:"):
            value = line[5:]
            values.append(value[1:] if value.startswith(b" ") else value)
    return b"\n".join(values)


def encode_event(data: bytes) -> bytes:
    """`data`, which holds no line ends (JSON never needs any), as one event."""
    return b"data: " + data + b"\n\n"
