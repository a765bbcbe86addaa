"""Starts a program in a session of its own, so that Ctrl-C at the terminal is for the launcher alone."""

import os
import signal
from collections.abc import Mapping

from penstock.supervisor.procfs import Handle, start_ticks

# Python ignores these, and what is ignored stays so across exec: programs that are not Python expect the default.
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)


def spawn(argv: tuple[str, ...], environment: Mapping[str, str], log: int) -> Handle:
    """Starts `argv` with stdout and stderr to the descriptor `log` and nothing on stdin.

    Raises:
        OSError: if it cannot be started.
    """
    pid = os.posix_spawn(
        argv[0],
        argv,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=_RESTORED,
    )
    return Handle(pid, start_ticks(pid) or 0, os.pidfd_open(pid))
