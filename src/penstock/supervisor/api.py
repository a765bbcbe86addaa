"""`supervisor.sock`: the supervisor's API, HTTP/1.1 with JSON over a Unix socket that only the folder's owner can open.

GET /processes · GET /replicas · PUT /replicas/<id> · DELETE /replicas/<id>?drain=SECONDS
"""

from typing import Annotated, Literal
from urllib.parse import parse_qs, unquote

import msgspec

from penstock.core.errors import BadRequest, NotFound
from penstock.net.reply import Reply
from penstock.net.request import Request
from penstock.runtime.port import ReplicaSpec
from penstock.supervisor.supervisor import Supervisor

_JSON = ((b"content-type", b"application/json"),)
_PREFIX = "/replicas/"


class ReplicaBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `PUT /replicas/<id>`."""

    directory: str
    model: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    args: tuple[str, ...] = ()
    task: Literal["engine", "examiner"] = "engine"


class SupervisorApi:
    """The handler for `net.server.Server`."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._body = msgspec.json.Decoder(ReplicaBody)

    async def __call__(self, request: Request, reply: Reply) -> None:
        """Answers one request.

        Raises:
            PenstockError: what the server turns into the reply.
        """
        match request.method, request.path:
            case "GET", "/healthz":
                _send(reply, {"status": "ok"})
            case "GET", "/processes":
                _send(reply, self._supervisor.processes())
            case "GET", "/replicas":
                _send(reply, self._supervisor.replicas())
            case "PUT", path if path.startswith(_PREFIX):
                _send(
                    reply, self._supervisor.start_replica(self._spec(unquote(path.removeprefix(_PREFIX)), request.body))
                )
            case "DELETE", path if path.startswith(_PREFIX):
                reply.shielded()
                await self._supervisor.stop_replica(unquote(path.removeprefix(_PREFIX)), _drain_s(request.query))
                _send(reply, {})
            case _:
                raise NotFound(f"The supervisor knows no {request.method} {request.path}.")

    def _spec(self, replica_id: str, body: bytes) -> ReplicaSpec:
        if not replica_id:
            raise BadRequest("A replica needs an id.", param="id")
        try:
            asked = self._body.decode(body)
        except msgspec.DecodeError as error:
            raise BadRequest(f"The replica {replica_id!r} is described wrongly: {error}.", param="body") from None
        return ReplicaSpec(
            id=replica_id,
            directory=asked.directory,
            model=asked.model,
            port=asked.port,
            args=asked.args,
            task=asked.task,
        )


def _drain_s(query: bytes) -> float:
    text = parse_qs(query.decode(errors="replace")).get("drain", ["0"])[0]
    try:
        return max(0.0, float(text))
    except ValueError:
        raise BadRequest(f"drain={text!r} is no number of seconds.", param="drain") from None


def _send(reply: Reply, value: object) -> None:
    reply.send(200, _JSON, msgspec.json.encode(value))
