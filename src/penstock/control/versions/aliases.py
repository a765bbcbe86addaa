"""Aliases: names of versions that move by compare-and-swap, each move kept."""

from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.access.principals import allows
from penstock.control.context import Change
from penstock.control.deploy.pool_gates import check_followers
from penstock.control.specs.resources import ENVIRONMENTS
from penstock.core.errors import Conflict, Forbidden, NotFound
from penstock.core.references import check_name
from penstock.registry.states import check_deployable
from penstock.store.schema import resources
from penstock.store.schema_versions import alias_moves, aliases

_TAKEN = frozenset({"latest", *ENVIRONMENTS})


async def read_aliases(connection: AsyncConnection, model: str) -> list[dict[str, Any]]:
    """The aliases of `model`, by name."""
    rows = await connection.execute(select(aliases).where(aliases.c.model == model).order_by(aliases.c.name))
    return [alias_answer(row) for row in rows]


def alias_answer(row: Any) -> dict[str, Any]:
    """An alias as the API tells it."""
    return {
        "model": row.model,
        "alias": row.name,
        "label": row.label,
        "digest": row.digest,
        "generation": row.generation,
        "moved_at": row.moved_at,
        "moved_by": row.moved_by,
    }


async def read_moves(connection: AsyncConnection, model: str, name: str) -> list[dict[str, Any]]:
    """Every move of one alias, newest first; of a removed one too.

    Raises:
        NotFound: if there never was one.
    """
    mine = (alias_moves.c.model == model) & (alias_moves.c.name == name)
    rows = (await connection.execute(select(alias_moves).where(mine).order_by(alias_moves.c.number.desc()))).all()
    if not rows:
        raise NotFound(f"There is no alias {model}@{name}.")
    return [
        {
            "number": row.number,
            "label": row.label,
            "digest": row.digest,
            "previous": row.previous,
            "reason": row.reason,
            "principal": row.principal,
            "at": row.at,
        }
        for row in rows
    ]


async def move_alias(
    change: Change,
    model: str,
    name: str,
    version: Any,
    *,
    own_environment: str,
    reason: str = "",
    generation: int | None = None,
) -> dict[str, Any]:
    """Let `NAME@ALIAS` mean `version` (a row of `versions`); made if it is not there.

    Args:
        change: the change.
        model: of the alias and the version.
        name: the alias.
        version: what it is to mean.
        own_environment: the one that gateways serve: its gates are asked where a pool follows the alias.
        reason: for the history.
        generation: of the alias as the caller saw it, 0: there was none; None: whatever it is.

    Raises:
        BadRequest: if it is no name.
        Forbidden: if a pool follows it, and the caller may not deploy.
        Conflict: if an environment is called so, the version may not be used, does not pass the gates that it would have to, or the alias has moved since the caller looked.
    """
    check_name(name, "alias")
    connection = change.connection
    await _check_free(connection, name)
    check_deployable(f"{version.model}:{version.label}", version.state)
    await _check_may_serve(change, f"{model}@{name}")
    now = await _find(connection, model, name)
    _check_seen(f"{model}@{name}", now, generation)
    if now is None or (now.label, now.digest) != (version.label, version.digest):
        await check_followers(change, f"{model}@{name}", version, own_environment)
    values = {"label": version.label, "digest": version.digest, "moved_at": change.now, "moved_by": change.caller.name}
    if now is None:
        await connection.execute(insert(aliases).values(model=model, name=name, generation=1, **values))
    elif (now.label, now.digest) == (version.label, version.digest):
        return alias_answer(now)
    else:
        mine = (aliases.c.model == model) & (aliases.c.name == name) & (aliases.c.generation == now.generation)
        moved = await connection.execute(
            update(aliases).where(mine).values(generation=now.generation + 1, previous=now.label, **values)
        )
        if moved.rowcount != 1:
            raise _moved(f"{model}@{name}")
    await _note(change, model, name, version, now, reason)
    return alias_answer(await _find(connection, model, name))


async def remove_alias(
    change: Change, model: str, name: str, *, reason: str = "", generation: int | None = None
) -> None:
    """Take an alias away; its history stays.

    Raises:
        NotFound: if there is none.
        Forbidden: if a pool follows it, and the caller may not deploy.
        Conflict: if it has moved since the caller looked.
    """
    await _check_may_serve(change, f"{model}@{name}")
    now = await _find(change.connection, model, name)
    if now is None:
        raise NotFound(f"There is no alias {model}@{name}.")
    _check_seen(f"{model}@{name}", now, generation)
    await change.connection.execute(delete(aliases).where(aliases.c.model == model, aliases.c.name == name))
    await _note(change, model, name, None, now, reason)


async def _check_may_serve(change: Change, what: str) -> None:
    """Whoever moves an alias that a pool follows changes what answers users."""
    if allows(change.caller.roles, "deployments:write"):
        return
    rows = await change.connection.execute(
        select(resources.c.name, resources.c.spec).where(resources.c.kind == "Pool").order_by(resources.c.name)
    )
    pool = next((row.name for row in rows if row.spec.get("build") == what), None)
    if pool is not None:
        raise Forbidden(
            f"The pool {pool} serves what {what} means: it is moved by those who may deploy, with the permission 'deployments:write'.",
            code="permission_denied",
            param="alias",
        )


async def _note(change: Change, model: str, name: str, version: Any, before: Any, reason: str) -> None:
    mine = (alias_moves.c.model == model) & (alias_moves.c.name == name)
    last = await change.connection.execute(select(func.coalesce(func.max(alias_moves.c.number), 0)).where(mine))
    await change.connection.execute(
        insert(alias_moves).values(
            model=model,
            name=name,
            number=last.scalar_one() + 1,
            label=version.label if version is not None else None,
            digest=version.digest if version is not None else None,
            previous=before.label if before is not None else None,
            reason=reason,
            principal=change.caller.name,
            at=change.now,
        )
    )
    await change.audit(
        "alias.move" if version is not None else "alias.remove",
        f"{model}@{name}",
        label=version.label if version is not None else None,
        digest=version.digest if version is not None else None,
        previous=before.label if before is not None else None,
        reason=reason,
    )


async def _find(connection: AsyncConnection, model: str, name: str) -> Any:
    statement = select(aliases).where(aliases.c.model == model, aliases.c.name == name)
    return (await connection.execute(statement)).one_or_none()


async def _check_free(connection: AsyncConnection, name: str) -> None:
    statement = select(resources.c.name).where(resources.c.kind == "Environment", resources.c.name == name)
    if name in _TAKEN or (await connection.execute(statement)).one_or_none() is not None:
        what = "the version committed last" if name == "latest" else "what an environment serves"
        raise Conflict(f"{name!r} means {what} and cannot be an alias.", code="alias_reserved", param="alias")


async def check_no_alias(connection: AsyncConnection, environment: str) -> None:
    """Raises `Conflict` if an alias is called as an environment is to be."""
    statement = select(aliases.c.model).where(aliases.c.name == environment).limit(1)
    model = (await connection.execute(statement)).scalar_one_or_none()
    if model is not None:
        raise Conflict(f"{model}@{environment} is an alias: an environment needs another name.", code="alias_reserved")


def _check_seen(what: str, now: Any, seen: int | None) -> None:
    is_now = now.generation if now is not None else 0
    if seen is not None and seen != is_now:
        raise Conflict(
            f"{what} is of generation {is_now}, not {seen}: it has moved meanwhile.",
            code="generation_conflict",
            param="generation",
        )


def _moved(what: str) -> Conflict:
    return Conflict(f"{what} has moved meanwhile.", code="generation_conflict", param="generation")
