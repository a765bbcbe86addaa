"""Replicas as processes of this machine: a client of the supervisor's Unix socket."""

from pathlib import Path
from urllib.parse import quote

import httpx
import msgspec

from penstock.core.errors import Conflict, PenstockError, Unavailable
from penstock.runtime.port import ReplicaSpec, RunningProcess, RunningReplica

_TIMEOUT_S = 10.0


class LocalRuntime:
    """The `Runtime` behind which the supervisor runs engines as its processes.

    Args:
        socket: path of `supervisor.sock`.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket)), base_url="http://supervisor", timeout=_TIMEOUT_S
        )

    async def start(self, replica: ReplicaSpec) -> RunningReplica:
        """As `Runtime.start`.

        Raises:
            Conflict: if the id runs something else.
            Unavailable: if the supervisor cannot be reached, or starts nothing now.
        """
        body = msgspec.json.encode(
            {"directory": replica.directory, "model": replica.model, "port": replica.port, "args": replica.args}
            | ({"task": replica.task} if replica.task != "engine" else {})
        )
        reply = await self._call("PUT", f"/replicas/{quote(replica.id, safe='')}", body=body)
        return msgspec.json.decode(reply, type=RunningReplica)

    async def stop(self, replica_id: str, *, drain_s: float) -> None:
        """As `Runtime.stop`; returns when the process has ended.

        Raises:
            Unavailable: if the supervisor cannot be reached.
        """
        path = f"/replicas/{quote(replica_id, safe='')}?drain={drain_s}"
        await self._call("DELETE", path, timeout_s=drain_s + _TIMEOUT_S)

    async def list(self) -> tuple[RunningReplica, ...]:
        """As `Runtime.list`.

        Raises:
            Unavailable: if the supervisor cannot be reached.
        """
        return msgspec.json.decode(await self._call("GET", "/replicas"), type=tuple[RunningReplica, ...])

    async def processes(self) -> tuple[RunningProcess, ...]:
        """As `ProcessList.processes`.

        Raises:
            Unavailable: if the supervisor cannot be reached.
        """
        return msgspec.json.decode(await self._call("GET", "/processes"), type=tuple[RunningProcess, ...])

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def _call(self, method: str, path: str, *, body: bytes = b"", timeout_s: float = _TIMEOUT_S) -> bytes:
        try:
            reply = await self._client.request(method, path, content=body, timeout=timeout_s)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"The supervisor at {self._socket} does not answer ({type(error).__name__}).", retry_after=1.0
            ) from None
        if reply.status_code == 200:
            return reply.content
        raise _refusal(reply)


def _refusal(reply: httpx.Response) -> PenstockError:
    try:
        sentence = str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        sentence = f"The supervisor answered {reply.status_code}."
    return Conflict(sentence) if reply.status_code == 409 else Unavailable(sentence, retry_after=1.0)
