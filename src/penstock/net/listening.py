"""The end of a socket that listens: nobody who has been let in is shown the door.

Closing a listener resets the connections that the kernel has taken and nobody has accepted, also where other processes share the port
(`SO_REUSEPORT`): the kernel chose among them when the connection began. So a listener that stops first turns newcomers away, by a filter that
drops their first packet (a client sends it again after a second, and then finds another process), lets those who are on their way arrive, and
takes them in. Where the kernel's `net.ipv4.tcp_migrate_req` is 1 it would move them itself.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import sys
from collections.abc import Sequence

_LAST_TURNS = 8  # of the event loop, in which what it has accepted becomes a connection
_MOST_TURNS = 16384
_UNACKED = slice(24, 28)  # of a `tcp_info`: of a socket that listens, connections that wait to be accepted
_SO_ATTACH_FILTER = 26
_SYN_DROPPED = (  # classic BPF over the TCP header: code, jump if true, jump if false, operand
    (0x30, 0, 0, 13),  # the flags
    (0x54, 0, 0, 0x12),  # of which SYN and ACK
    (0x15, 0, 1, 0x02),  # if SYN alone
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),
)


async def take_in(socks: Sequence[socket.socket], shared: bool, grace_s: float) -> None:
    """Lets the running loop accept all that has come to `socks`; with `shared`, others listen on the same ports and get who comes from now on."""
    listening = [sock for sock in socks if sock.family in {socket.AF_INET, socket.AF_INET6}]
    if shared and listening:
        for sock in listening:
            _turn_away(sock)
        await asyncio.sleep(grace_s)
    empty = 0
    for _ in range(_MOST_TURNS):
        empty = 0 if any(_waiting(sock) for sock in listening) else empty + 1
        if empty > _LAST_TURNS:
            break
        await asyncio.sleep(0)


def _waiting(sock: socket.socket) -> int:
    told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(told[_UNACKED], sys.byteorder)


def _turn_away(sock: socket.socket) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _SYN_DROPPED))
    program = struct.pack("HP", len(_SYN_DROPPED), ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
