"""Asks a process over HTTP whether it lives: one plain GET, no client library."""

import asyncio
import os
import ssl
from pathlib import Path
from urllib.parse import unquote, urlsplit

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


async def status_of(url: str, timeout_s: float = 2.0) -> int:
    """The status that GET `url` is answered with; 0 if there is no answer within `timeout_s` seconds. As `fetch`."""
    return (await fetch(url, timeout_s))[0]


async def fetch(url: str, timeout_s: float = 2.0) -> tuple[int, bytes]:
    """Status and body that GET `url` is answered with; 0 and nothing if there is no answer within `timeout_s` seconds.

    Of `https://` any certificate will do: processes of this machine are asked, by an address that theirs need not name.
    `unix:///path/of/socket?/path` asks for the path that follows the question mark.
    """
    parts = urlsplit(url)
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            if parts.scheme == "unix":
                reader, writer = await _unix(Path(unquote(parts.path)))
                parts = urlsplit(f"unix://penstock{parts.query}")
            else:
                sealed = unverified() if parts.scheme == "https" else None
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=sealed)
            writer.write(
                f"GET {parts.path or '/'} HTTP/1.1\r\nhost: {parts.netloc}\r\nconnection: close\r\n\r\n".encode()
            )
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            return int(head.split(None, 2)[1]), body
    except (OSError, TimeoutError, ValueError, IndexError):
        return 0, b""
    finally:
        if writer is not None:
            writer.close()


async def _unix(socket: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    folder = os.open(socket.parent, os.O_PATH)  # a socket's path holds 107 bytes; that of a descriptor is never longer
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{socket.name}")
    finally:
        os.close(folder)


def unverified() -> ssl.SSLContext:
    """A client's side of TLS with whoever answers; for addresses of this machine, and for nothing secret to others."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def wait_healthy(url: str) -> None:
    """Returns as soon as GET `url` is answered with 200; cancel it to give up."""
    pause = _FIRST_PAUSE_S
    while await status_of(url) != 200:
        await asyncio.sleep(pause)
        pause = min(_LONGEST_PAUSE_S, pause * 1.5)
