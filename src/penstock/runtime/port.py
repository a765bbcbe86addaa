"""Where replicas run, as a port: local processes under the supervisor, Ray or Kubernetes stand behind it."""

from typing import Literal, Protocol

import msgspec


class ReplicaSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One process to run: an engine, or the examiner, which runs engines of its own."""

    id: str  # POOL-NUMBER; starting the same id again is no second start
    directory: str  # what `penstock engine` loads
    model: str  # what the engine answers to in the `model` field
    port: int | None = None  # none: any free one
    args: tuple[str, ...] = ()
    task: Literal["engine", "examiner"] = "engine"  # an examiner has no directory, model or port


class RunningReplica(msgspec.Struct, frozen=True, kw_only=True):
    """One engine process as it is now."""

    id: str
    url: str  # http://host:port
    pid: int = 0
    state: Literal["starting", "running", "restarting", "draining", "stopped", "failed"] = "running"
    restarts: int = 0


class RunningProcess(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the machine that is kept running, engines among them."""

    name: str
    kind: str
    restarts: int  # since it was first started
    since: float  # Unix seconds of its last start
    last_exit: str = ""  # how it ended last, in words


class ProcessList(Protocol):
    """Tells what is kept running on a machine."""

    async def processes(self) -> tuple[RunningProcess, ...]:
        """All of it.

        Raises:
            Unavailable: if whoever keeps it running cannot be reached.
        """
        ...


class Runtime(Protocol):
    """Starts, stops and lists replicas. Whether one is ready to answer is asked of itself (`/readyz`)."""

    async def start(self, replica: ReplicaSpec) -> RunningReplica:
        """Run `replica`, or say how it runs if it does already.

        Raises:
            Unavailable: if it cannot be started now.
        """
        ...

    async def stop(self, replica_id: str, *, drain_s: float) -> None:
        """Ask the replica to finish what it has within `drain_s` seconds and end it; one that is not there is no error.

        Raises:
            Unavailable: if the runtime cannot be reached.
        """
        ...

    async def list(self) -> tuple[RunningReplica, ...]:
        """All replicas that were started and not stopped.

        Raises:
            Unavailable: if the runtime cannot be reached.
        """
        ...
