"""Heads of tar members, read with suspicion: POSIX.1-1988 (ustar), with pax records for long sizes and names. Pure.

Python's `tarfile` reads whatever a member's extended header claims to hold into memory, follows GNU's sparse maps and keeps links; none of that is
wanted of a file from a stranger.
"""

import re

import msgspec

from penstock.core.errors import BadRequest

BLOCK = 512
MOST_EXTENDED = 1 << 16  # bytes of a pax record's body
_MOST_SIZE = 1 << 50
_PAX = re.compile(rb"(\d{1,7}) ([a-zA-Z.]{1,64})=")


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a header block says. `kind`: file, folder, extended (its body is a pax record of what follows), skipped, or end."""

    name: str = ""
    size: int = 0
    kind: str = "file"


def read_head(block: bytes, extended: dict[str, str]) -> Head:
    """What `block`, 512 bytes, says, with the pax records that came before it.

    Raises:
        BadRequest: if it is no header, or of a member that an archive of a version does not have: a link, a device, a sparse file.
    """
    if not any(block):
        return Head(kind="end")
    if len(block) != BLOCK or block[257:262] != b"ustar":
        raise _wrong("it is no tar archive, or cut off")
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    if _number(block[148:156]) != total:
        raise _wrong("a header's checksum is wrong")
    kind = {b"0": "file", b"\0": "file", b"5": "folder", b"x": "extended", b"g": "skipped"}.get(block[156:157])
    prefix, name = block[345:500].partition(b"\0")[0], block[:100].partition(b"\0")[0]
    if block[257:265] == b"ustar  \0":  # GNU's form, whose prefix holds other things
        prefix = b""
    try:
        path = extended.get("path") or (prefix + b"/" + name if prefix else name).decode()
    except UnicodeDecodeError:
        raise _wrong("a name is not UTF-8") from None
    if kind is None:
        raise _wrong(f"{path!r} is neither a file nor a folder: links, devices and sparse files are refused")
    if any(key.startswith("GNU.sparse") for key in extended):
        raise _wrong(f"{path!r} is a sparse file")
    size = _number(block[124:136])
    if kind == "file" and "size" in extended:
        size = int(extended["size"]) if extended["size"].isdecimal() and len(extended["size"]) < 17 else -1
    if not 0 <= size <= (MOST_EXTENDED if kind in {"extended", "skipped"} else _MOST_SIZE):
        raise _wrong(f"{path!r} claims {size} bytes")
    if kind == "folder" and size:
        raise _wrong(f"the folder {path!r} claims {size} bytes")
    return Head(name=path, size=size, kind=kind)


def read_extended(body: bytes) -> dict[str, str]:
    """The records of a pax header: LENGTH KEY=VALUE and a newline each.

    Raises:
        BadRequest: if it is none.
    """
    found: dict[str, str] = {}
    at = 0
    while at < len(body):
        match = _PAX.match(body, at)
        end = at + int(match[1]) if match else 0
        if match is None or end > len(body) or end <= match.end() or body[end - 1 : end] != b"\n":
            raise _wrong("an extended header is no pax record")
        try:
            found[match[2].decode()] = body[match.end() : end - 1].decode()
        except UnicodeDecodeError:
            raise _wrong("an extended header is not UTF-8") from None
        at = end
    return found


def make_head(name: str, size: int) -> bytes:
    """The header of a file, the same for the same name and size: no owner, no time. Sizes from 8 GiB on get a pax record before it.

    Raises:
        ValueError: if the name has more than 100 bytes.
    """
    if len(name.encode()) > 100:
        raise ValueError(name)
    if size < 8**11:
        return _head(name, size, b"0")
    record = _record("size", str(size))
    return _head("PaxHeaders/size", len(record), b"x") + padded(record) + _head(name, 0, b"0")


def padded(body: bytes) -> bytes:
    """`body`, filled up to whole blocks."""
    return body + bytes(-len(body) % BLOCK)


def _head(name: str, size: int, kind: bytes) -> bytes:
    block = bytearray(BLOCK)
    block[: len(name.encode())] = name.encode()
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136], block[136:148] = f"{size:011o}\0".encode(), b"00000000000\0"
    block[148:156], block[156:157], block[257:265] = b" " * 8, kind, b"ustar\x0000"
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def _record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n".encode()
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def _number(field: bytes) -> int:
    if field[:1] in {b"\x80", b"\xff"}:  # GNU's base 256
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1
    text = field.strip(b" \0")
    return int(text, 8) if text and not text.strip(b"01234567") else (0 if not text else -1)


def _wrong(why: str) -> BadRequest:
    return BadRequest(f"The archive is refused: {why}.", code="bad_archive", param="FILE")
