"""Ports for servers that are told theirs and take them later, as processes and replaced servers do."""

import random
import socket
from pathlib import Path

LOWEST = 10_000
_DRAW = random.SystemRandom()  # no seed of a test's may give two processes the same ports


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on, all different.

    They are below those that the kernel hands out, so that neither a connection nor a server that asked for any port gets one of
    them before who they are for.
    """
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    beyond = int(text.split()[0])
    found: set[int] = set()
    while len(found) < count:
        port = _DRAW.randrange(LOWEST, beyond)
        if port not in found and _is_free(port):
            found.add(port)
    return list(found)


def free_port() -> int:
    """One of `free_ports`."""
    return free_ports(1)[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
