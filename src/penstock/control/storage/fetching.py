"""Versions being fetched: what their files are made of, and the leases that keep the sweep away meanwhile."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from penstock.control.context import Control
from penstock.core.errors import NotFound
from penstock.registry.blocks import Recipe
from penstock.registry.manifest import read_manifest
from penstock.store.block_index import read_file, some
from penstock.store.schema_storage import pulls, stored_files

HOLD_S = 3600.0  # since the last call
_RENEW_S = 600.0


async def recipes_of(control: Control, version: Any) -> dict[str, tuple[str, int, Recipe | None]]:
    """Path -> digest, size and blocks of each file of `version` (a row); None for one that is still kept whole.

    Raises:
        NotFound: if files of it have been swept.
        Damaged: if the list of a file's blocks is not what was written.
    """
    manifest = read_manifest(version.manifest, version.digest)
    found: dict[str, Recipe] = {}
    async with control.database.read() as connection:
        for part in some(entry.digest for entry in manifest.files.values()):
            for row in await connection.execute(select(stored_files).where(stored_files.c.digest.in_(part))):
                found[row.digest] = read_file(row).recipe
    for path, entry in manifest.files.items():
        if entry.digest not in found and await control.blobs.whole.size(entry.digest) is None:
            raise NotFound(f"The bytes of {path} of {version.model}:{version.label} are not stored any more.")
    return {path: (entry.digest, entry.size, found.get(entry.digest)) for path, entry in manifest.files.items()}


async def hold(control: Control, digest: str) -> None:
    """Keep the bytes of the version for an hour from now, whatever becomes of it."""
    now = control.clock()
    async with control.database.read() as connection:
        until = (await connection.execute(select(pulls.c.until).where(pulls.c.digest == digest))).scalar_one_or_none()
    if until is not None and until > now + HOLD_S - _RENEW_S:
        return
    async with control.database.write() as connection:
        insertion = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        one = insertion(pulls).values(digest=digest, until=now + HOLD_S)
        await connection.execute(
            one.on_conflict_do_update(index_elements=["digest"], set_={"until": one.excluded.until})
        )
