"""Blocks: a version that was rolled back for cause is kept out of its environment until somebody clears it."""

from collections.abc import Iterable

import msgspec

from penstock.core.errors import Conflict


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Why a version may not be deployed in an environment. `at` is in Unix seconds."""

    environment: str
    model: str
    label: str
    digest: str
    reason: str
    principal: str  # who blocked it
    at: float


def check_unblocked(blocks: Iterable[Block], *, model: str, label: str, digest: str, environment: str) -> None:
    """Refuse what is blocked, by its digest: the same files under another label are the same version.

    Args:
        blocks: those that stand.
        model: of the version.
        label: of the version, for the message.
        digest: of the version.
        environment: where it is to run.

    Raises:
        Conflict: if one of `blocks` is of this version and environment.
    """
    for block in blocks:
        if (block.environment, block.model, block.digest) == (environment, model, digest):
            alias = "" if block.label == label else f" as {block.label}"
            raise Conflict(
                f"{model}:{label} is blocked in {environment}{alias}, by {block.principal}: {block.reason}",
                code="version_blocked",
                param="label",
                hint=f"When its cause is gone: penstock blocks clear {model}:{block.label} --in {environment} --reason WHY",
            )


def blocked_digests(blocks: Iterable[Block], *, model: str, environment: str) -> frozenset[str]:
    """The digests of `model` that may not run in `environment`."""
    return frozenset(b.digest for b in blocks if (b.environment, b.model) == (environment, model))
