"""`GET /v1/models`: the routes that the caller may use, as OpenAI lists models."""

import msgspec

from penstock.gateway.index import Caller, Index, RouteEntry
from penstock.gateway.resolve import find_route


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "penstock"
    ready: bool = True  # it leads to a replica


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    object: str = "list"
    data: list[Model]


def list_models(index: Index, caller: Caller) -> bytes:
    """The list, sorted by name."""
    models = [
        Model(id=name, created=entry.route.created, ready=_ready(entry))
        for name, entry in sorted(index.routes.items())
        if caller.may_call(name)
    ]
    return msgspec.json.encode(ModelList(data=models))


def show_model(index: Index, caller: Caller, name: str) -> bytes:
    """One model.

    Raises:
        NotFound: if there is none of this name.
        Forbidden: if the caller may not use it.
    """
    entry = find_route(index, caller, name)
    return msgspec.json.encode(Model(id=entry.route.name, created=entry.route.created, ready=_ready(entry)))


def _ready(entry: RouteEntry) -> bool:
    return any(leg.entry.origins for leg in (*entry.legs, *entry.arms.values()))
