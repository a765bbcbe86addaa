"""Connections within one host, on which much is moved."""

import socket

_ON_THE_WAY = 256 << 10


def keep_in_cache(sock: socket.socket) -> None:
    """Let less wait in `sock` for the other side, if that is on this host: what it takes is then still in the processor's cache, which halves what moving it costs.

    A connection to another host is left as it is: the system finds out how much has to be on the way there.
    """
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    host = sock.getpeername()[0]
    if host.startswith("127.") or host in {"::1", "::ffff:127.0.0.1"}:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ON_THE_WAY // 2)  # Linux doubles it
