"""Heads of the plain kind, read without a parser: what nearly every client and engine sends, and nothing that two readers could take differently.

Whatever is not certainly plain is left to llhttp, byte for byte, so that strictness is decided there. Plain is: HTTP/1.1, lines that end in CRLF,
each field once and on one line, no blank before the colon, visible ASCII only, a body framed by one Content-Length or, of an engine, by
`Transfer-Encoding: chunked` alone, and none of the fields that change how a connection goes on (RFC 9112, sections 2.2, 5 and 6).
"""

from typing import Final

from penstock.net.request import Request

_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_VISIBLE = bytes(range(0x20, 0x7F)) + b"\t"
_TARGET = bytes(range(0x21, 0x7F)).replace(b"#", b"")
_SPECIAL = frozenset(
    {
        b"transfer-encoding",
        b"expect",
        b"upgrade",
        b"te",
        b"trailer",
        b"keep-alive",
        b"proxy-connection",
        b"http2-settings",
    }
)
_SECRET = frozenset({b"authorization", b"proxy-authorization", b"cookie"})  # never remembered
_MOST_REMEMBERED = 4096
_LONGEST_REMEMBERED = 160
_LONGEST_LENGTH = 12  # digits
_MOST_FIELDS = 64  # a head with more is left to the parser, which counts them

Field = tuple[bytes, bytes]


Answer = tuple[int, dict[bytes, bytes], int, int]


class Reader:
    """Reads heads, and remembers lines that it has checked: clients and engines send the same ones again and again."""

    __slots__ = ("_fields", "_most_fields", "_targets")

    def __init__(self, most_fields: int = _MOST_FIELDS) -> None:
        """Heads of more than `most_fields` lines are left to the parser; with 0, all."""
        self._most_fields = most_fields
        self._fields: dict[bytes, Field] = {}
        self._targets: dict[bytes, tuple[str, str, bytes]] = {}

    def request(self, data: bytes, most: int, received_ns: int, peer: str) -> tuple[Request, int, int] | None:
        """The request whose head `data` begins with, without its body.

        Args:
            data: what was read at a place where a request begins.
            most: how many bytes the head may have.
            received_ns: when its first byte was read.
            peer: the client's address.

        Returns:
            The request, the size of its head and the size of its body; None if the head is not whole, or not plain.
        """
        end = data.find(b"\r\n\r\n", 0, most)
        if end < 0:
            return None
        lines = data[:end].split(b"\r\n")
        line = lines[0]
        target = self._targets.get(line)
        if target is None:
            target = self._target(line)
            if target is None:
                return None
        if len(lines) > self._most_fields:
            return None
        headers = self._headers(lines)
        if headers is None or b"host" not in headers:
            return None
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > _LONGEST_LENGTH or (length[:1] == b"0" and length != b"0"):
            return None
        method, path, query = target
        return Request(method, path, query, headers, received_ns, "1.1", True, peer), end + 4, int(length)

    def answer(self, data: bytes, most: int) -> Answer | None:
        """The head of the answer that `data` begins with, of at most `most` bytes.

        Returns:
            Status, header fields, the size of the head, and the size of the body: -1 if that is chunked. None if the head is not whole, or not plain.
        """
        end = data.find(b"\r\n\r\n", 0, most)
        if end < 0 or not data.startswith(b"HTTP/1.1 "):
            return None
        lines = data[:end].split(b"\r\n")
        if len(lines) > self._most_fields:
            return None
        first = lines[0]
        code = first[9:12]
        if not code.isdigit() or first[12:13] not in {b" ", b""} or first.translate(None, _VISIBLE):
            return None
        status = int(code)
        if status < 200 or status in {204, 304}:
            return None
        chunked = False
        if b"transfer-encoding: chunked" in lines:
            lines.remove(b"transfer-encoding: chunked")
            chunked = True
        headers = self._headers(lines)
        if headers is None:
            return None
        length = headers.get(b"content-length")
        if length is None:
            return (status, headers, end + 4, -1) if chunked else None
        if chunked or not length.isdigit() or len(length) > _LONGEST_LENGTH:
            return None
        return status, headers, end + 4, int(length)

    def _headers(self, lines: list[bytes]) -> dict[bytes, bytes] | None:
        fields = self._fields
        headers: dict[bytes, bytes] = {}
        for i in range(1, len(lines)):
            line = lines[i]
            field = fields.get(line)
            if field is None:
                field = self._field(line)
                if field is None:
                    return None
            headers[field[0]] = field[1]
        return headers if len(headers) == len(lines) - 1 else None

    def _field(self, line: bytes) -> Field | None:
        name, colon, value = line.partition(b":")
        if not colon or not name or name.translate(None, _TOKEN) or value.translate(None, _VISIBLE):
            return None
        name, value = name.lower(), value.strip(b" \t")
        if name in _SPECIAL or (name == b"connection" and value.lower() != b"keep-alive"):
            return None
        field = (name, value)
        if name not in _SECRET and len(line) <= _LONGEST_REMEMBERED:
            if len(self._fields) >= _MOST_REMEMBERED:
                self._fields.clear()
            self._fields[line] = field
        return field

    def _target(self, line: bytes) -> tuple[str, str, bytes] | None:
        method, _, rest = line.partition(b" ")
        target, _, version = rest.partition(b" ")
        if (
            method not in {b"POST", b"GET"}
            or version != b"HTTP/1.1"
            or target[:1] != b"/"
            or target[:2] == b"//"
            or target.translate(None, _TARGET)
        ):
            return None
        path, _, query = target.partition(b"?")
        found = (method.decode(), path.decode(), query)
        if len(line) <= _LONGEST_REMEMBERED:
            if len(self._targets) >= _MOST_REMEMBERED:
                self._targets.clear()
            self._targets[line] = found
        return found


def whole_chunks(data: bytes) -> tuple[list[bytes], bool] | None:
    """The chunks that `data` is made of, if it begins at a chunk's head and holds nothing but whole ones, without extensions (RFC 9112, section 7.1).

    Returns:
        The chunks' contents, and whether the last chunk followed, with an empty trailer. None if `data` is made in any other way.
    """
    end = len(data)
    if end < _HEADS_UNTIL:
        head = _HEADS[end]
        if data.startswith(head) and data.endswith(b"\r\n"):  # one chunk, as most reads of a stream are
            return [data[len(head) : end - 2]], False
    pieces: list[bytes] = []
    at = 0
    while at < end:
        gap = data.find(b"\r\n", at, at + 18)
        if gap < 0:
            return None
        size = _SIZES.get(data[at:gap])
        if size is None:
            size = _size(data[at:gap])
            if size < 0:
                return None
        if size == 0:
            return (pieces, True) if data[gap:] == b"\r\n\r\n" else None
        start = gap + 2
        after = start + size
        if data[after : after + 2] != b"\r\n":
            return None
        pieces.append(data[start:after])
        at = after + 2
    return pieces, False


_SIZES: dict[bytes, int] = {b"%x" % size: size for size in range(1024)} | {b"%X" % size: size for size in range(1024)}
_HEADS_UNTIL: Final = 4096


def _heads() -> list[bytes]:
    """By the length of a whole chunk, what it begins with; what begins no chunk where none has that length."""
    heads = [bytes(_HEADS_UNTIL)] * _HEADS_UNTIL
    for size in range(1, _HEADS_UNTIL):
        head = b"%x\r\n" % size
        if len(head) + size + 2 < _HEADS_UNTIL:
            heads[len(head) + size + 2] = head
    return heads


_HEADS: Final = _heads()
_HEXADECIMAL = b"0123456789abcdefABCDEF"


def _size(digits: bytes) -> int:
    if not digits or len(digits) > 8 or digits.translate(None, _HEXADECIMAL):
        return -1
    return int(digits, 16)
