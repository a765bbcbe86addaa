"""What follows for the deployment when an experiment has its verdict, as its author declared: a promotion, a block, a roll-back."""

from typing import NamedTuple

from penstock.control.context import Change
from penstock.control.deploy.blocks import block_version
from penstock.control.deploy.record import Promotion, promote, roll_back
from penstock.control.deploy.rows import read_pointer, read_revision
from penstock.control.versions.find import find_version
from penstock.core.errors import BadRequest, Conflict, Forbidden, NotFound
from penstock.core.references import parse_reference
from penstock.experiments.hooks import Deed


class Followed(NamedTuple):
    """Whether it was done, and what was, or why not."""

    done: bool
    words: str


async def follow(change: Change, name: str, deed: Deed, environment: str) -> Followed:
    """Do it, and say what was done, or why it could not be; the experiment `name` is decided either way."""
    reason = f"the experiment {name}"
    try:
        async with change.connection.begin_nested():
            if deed.act == "promote":
                return Followed(True, await _promoted(change, deed.version, environment, reason))
            return Followed(True, await _kept_out(change, deed, environment, reason))
    except (Conflict, NotFound, Forbidden, BadRequest) as refusal:
        done = {"promote": "promoted", "block": "blocked", "roll_back": "rolled back"}[deed.act]
        return Followed(False, f"{deed.version} could not be {done} in {environment}: {refusal.message}")


async def _promoted(change: Change, version: str, environment: str, reason: str) -> str:
    wish = Promotion(reference=parse_reference(version), environment=environment, reason=f"It won {reason}.")
    revision = await promote(change, wish, own_environment=environment)
    return f"{version} was promoted to {environment} (revision {revision.number})."


async def _kept_out(change: Change, deed: Deed, environment: str, reason: str) -> str:
    version = await find_version(change.connection, parse_reference(deed.version))
    said = f"It lost {reason}."
    await block_version(
        change,
        environment=environment,
        model=version.model,
        label=version.label,
        digest=version.digest,
        reason=said,
    )
    pointer = await read_pointer(change.connection, environment, version.model, None)
    live = await read_revision(change.connection, pointer.live) if pointer is not None and pointer.live else None
    if deed.act != "roll_back" or live is None or live.digest != version.digest:
        return f"{deed.version} is blocked in {environment} until somebody clears it."
    earlier = await roll_back(change, version.model, environment, own_environment=environment, reason=said)
    return (
        f"{deed.version} was rolled back in {environment} to {earlier.label}, and is blocked until somebody clears it."
    )
