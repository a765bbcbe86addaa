"""Where a server is, parsed once."""

from urllib.parse import urlsplit

import msgspec

from penstock.core.errors import BadRequest


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """A server's address: `host` and `port`, or the path of a Unix socket; `base` stands before every path."""

    key: str  # two origins with one key are one
    host: str = ""
    port: int = 0
    tls: bool = False
    unix: str = ""
    base: bytes = b""
    host_line: bytes = b""  # the `host` field, encoded

    def __str__(self) -> str:
        """As a URL."""
        return f"unix:{self.unix}" if self.unix else f"http{'s' * self.tls}://{self.host}:{self.port}"


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait, in seconds; looked at about every 50 ms."""

    connect_s: float = 2.0
    first_byte_s: float = 60.0  # from the request's last byte to the first byte of the answer's body
    stall_s: float = 30.0  # between two reads of the body
    answer_s: float = (
        86400.0  # from the request to the last byte of the answer; what a slow reader takes is not counted
    )


def parse_origin(url: str) -> Origin:
    """The origin of `url`: `http://host:port`, `https://host` or `unix:/path/of/socket`.

    Raises:
        BadRequest: if it is none of these.
    """
    if url.startswith("unix:"):
        return Origin(key=url, unix=url.removeprefix("unix:"), host_line=b"host: localhost\r\n")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadRequest(f"{url!r} is not a URL.", param="url") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise BadRequest(f"{url!r} is no server's address: write http://host:port.", param="url")
    tls = parts.scheme == "https"
    name = parts.netloc.rpartition("@")[2]
    return Origin(
        key=url,
        host=parts.hostname,
        port=port or (443 if tls else 80),
        tls=tls,
        base=parts.path.rstrip("/").encode(),
        host_line=b"host: %b\r\n" % name.encode("idna" if not name.isascii() else "ascii"),
    )
