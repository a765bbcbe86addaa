"""Whether a TCP port can be had on this machine."""

import errno
import socket

from penstock.core.errors import Conflict, PenstockError, Unavailable


def reachable(host: str) -> str:
    """An address at which a process that listens on `host` can be reached from this machine."""
    return "127.0.0.1" if host in {"", "0.0.0.0", "::"} else host  # noqa: S104 - compared, not bound


def is_free(host: str, port: int) -> bool:
    """Whether nothing listens on `port` of `host` (not even another process that would share it)."""
    try:
        check_port(host, port, flag="")
    except PenstockError:
        return False
    return True


def check_port(host: str, port: int, *, flag: str) -> None:
    """Returns if `port` of `host` can be listened on. `flag` is the command's flag that chooses another; messages name it.

    Raises:
        Conflict: if something listens there.
        Unavailable: if this machine refuses the port or the address for another reason.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise Unavailable(
            f"The address {host!r} is not known on this machine: {error.strerror}.", param="host"
        ) from None
    with socket.socket(family, kind, protocol) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
            sock.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Conflict(
                    f"Port {port} on {host} is in use by another program; choose another port with {flag}.",
                    code="port_in_use",
                    param=flag,
                ) from None
            raise Unavailable(
                f"Port {port} on {host} cannot be listened on ({error.strerror}); choose another with {flag}.",
                param=flag,
            ) from None
