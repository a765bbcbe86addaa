"""`kind: Experiment` for `penstock apply`: registers drafts; starting one is a deed of its own."""

from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.experiments.life import register, remove
from penstock.control.kinds import Origin
from penstock.core.errors import BadRequest
from penstock.experiments.arms import check_parameters
from penstock.experiments.design import Design, parse_design
from penstock.store.schema_experiments import experiments


class ExperimentKind:
    """Experiments as a kind of resource (see `kinds.Kind`)."""

    name = "Experiment"
    plural = "experiments"

    def parse(self, spec: object) -> Design:
        """The checked design.

        Raises:
            BadRequest: its `param` is the path of what is wrong, from `spec` on.
        """
        try:
            design = parse_design(spec)
            check_parameters(design.arms)
        except BadRequest as error:
            path = "spec" if error.param in (None, "spec") else f"spec.{error.param}"
            raise BadRequest(f"{path}: {error.message}", param=path, code=error.code, hint=error.hint) from None
        return design

    def dump(self, spec: Design) -> dict[str, Any]:
        """The design as JSON, without what has its default."""
        plain: dict[str, Any] = msgspec.to_builtins(spec)
        return plain

    async def current(self, connection: AsyncConnection, origin: Origin | None = None) -> dict[str, dict[str, Any]]:
        """All that are there, by name; with `origin` those of it that are not put away."""
        statement = select(experiments.c.name, experiments.c.spec).order_by(experiments.c.name)
        if origin is not None:
            statement = statement.where(experiments.c.origin == origin, experiments.c.state != "archived")
        return {row.name: self.dump(parse_design(row.spec)) for row in await connection.execute(statement)}

    async def put(self, change: Change, name: str, spec: Design, origin: Origin) -> dict[str, Any]:
        """Register it.

        Raises:
            Conflict: if it has started and the design is another.
        """
        await register(change, name, spec, origin)
        return {}

    async def delete(self, change: Change, name: str) -> None:
        """Delete a draft, or put a decided one away.

        Raises:
            NotFound: if there is none.
            Conflict: if it runs.
        """
        await remove(change, name)
