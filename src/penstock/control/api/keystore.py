"""How hosts exchange keys with control (`/internal/v1/keys`), and which hosts have carried out what was to be forgotten (`/api/v1/subjects/hosts`)."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, check_service, needs
from penstock.control.content.keystore import SharedKeystore
from penstock.core.errors import BadRequest, NotFound
from penstock.journal.keyslots import SLOT_BYTES, is_slot, read_slot

Eraser = Annotated[Principal, Depends(needs("subjects:forget"))]
Id = Annotated[str, Query(pattern="^[0-9a-f]{16}$")]
MAX_BODY_BYTES = 1024 * 1024


def key_exchange_router(keys: SharedKeystore, root: Path) -> APIRouter:
    """What hosts ask; `root` is the file of the root key, which is wrapped by the master key."""
    router = APIRouter(prefix="/internal/v1/keys", dependencies=[Depends(check_service)], include_in_schema=False)

    @router.get("/root")
    def give_root() -> Response:
        """The root key for a new host: whoever has the master key can open it."""
        return Response(root.read_bytes(), media_type="application/json")

    @router.get("/orders")
    async def orders(
        host: Id,
        root: Id,
        name: Annotated[str, Query(max_length=255)],
        after: Annotated[int, Query(ge=0, lt=2**62)],
        at: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    ) -> Response:
        """The next orders; all up to `after`, which said `at`, have been carried out."""
        told = await keys.orders(host, name, root, after, at)
        return Response(msgspec.json.encode(told), media_type="application/json")

    @router.post("/slots")
    async def take(request: Request, host: Id, root: Id) -> dict[str, int]:
        """New slots of a host."""
        body = await request.body()
        pieces = [body[at : at + SLOT_BYTES] for at in range(0, len(body), SLOT_BYTES)]
        if len(body) > MAX_BODY_BYTES or not all(is_slot(piece) for piece in pieces):
            raise BadRequest("The body is no list of slots, or too long.", param="body")
        return {"unreadable": await keys.take(host, root, [read_slot(piece) for piece in pieces])}

    return router


def key_hosts_router(keys: SharedKeystore | None) -> APIRouter:
    """What people ask; without shared keys there are no hosts to be told of."""
    router = APIRouter(prefix="/subjects/hosts", tags=["content"])

    @router.get("")
    async def listing(_who: Eraser) -> list[dict[str, Any]]:
        """The hosts that have keys, and how many orders to forget somebody each has not confirmed yet. None where each host has its own."""
        return [msgspec.to_builtins(one) for one in await keys.hosts()] if keys is not None else []

    @router.delete("/{host}", status_code=204)
    async def remove(control: ControlPart, who: Eraser, host: str) -> None:
        """Wait for a host no longer: it is gone, and the disk with its keys too. If it comes back it is told all there is to forget."""
        if keys is None:
            raise NotFound(f"There is no host {host!r} that has keys.", param="id")
        await keys.remove(host)
        await control.note(who, "subject.host_removed", host)

    return router
