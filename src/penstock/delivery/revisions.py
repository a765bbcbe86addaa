"""Revisions: what an environment runs of a model, as a sequence of whole states. A rollback is a new one that copies an earlier whole."""

from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

from penstock.core.errors import Conflict, NotFound

RevisionState = Literal["pending", "live", "superseded", "failed"]


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    """The whole state that a revision stands for."""

    label: str
    digest: str
    precision: str = "int8"
    replicas: int = 1


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of the record."""

    id: str
    number: int
    state: RevisionState
    whole: Whole
    source: str | None = None  # of a rollback: id of the revision whose state it copied


def choose_rollback(
    history: Sequence[Past],
    *,
    wanted: str,
    to: str | None = None,
    blocked: Collection[str] = (),
    leaves_live: bool = False,
) -> Past:
    """The revision whose whole state a rollback copies.

    Args:
        history: all revisions of the model in the environment.
        wanted: id of the revision that is live, or warming up to be.
        to: a revision's number or a version's label; None: if the wanted revision is not live yet, the one that is; else the newest
            before it that was live with another whole state. A rollback stands where the revision that it copied stands, so that
            a second one goes further back and never forward again to what was left.
        blocked: digests that may not run there: they are passed over.
        leaves_live: what is live itself is to go, whatever was tried after it and failed.

    Raises:
        NotFound: if there is none such.
        Conflict: if it is the whole state that is wanted already, was never live, or is blocked; without `to` and `leaves_live` also if the newest revision
            failed, because what is live then is what was there before, and nothing is left to undo.
    """
    now = next(past for past in history if past.id == wanted)
    served = sorted(
        (p for p in history if p.state in {"live", "superseded"} and p.id != wanted), key=lambda p: -p.number
    )
    if to is None:
        live = next((p for p in served if p.state == "live"), None)
        if now.state != "live" and live is not None:
            return live
        newest = max(history, key=lambda past: past.number)
        if newest.state == "failed" and not leaves_live:
            raise Conflict(
                f"{newest.whole.label} failed and never served: {now.whole.label} still answers. To go further back, say to which.",
                code="nothing_to_undo",
                param="to",
            )
        place = _place(now, {past.id: past for past in history})
        for past in served:
            if past.number < place and past.whole != now.whole and past.whole.digest not in blocked:
                return past
        raise NotFound("There is no earlier revision to go back to.", code="nothing_to_roll_back_to")
    wished = [p for p in history if to in {str(p.number), p.whole.label}]
    if not wished:
        raise NotFound(f"There is no revision {to!r} in this history.", param="to")
    was = [p for p in wished if p in served]
    if not was:
        if now in wished:
            raise Conflict(f"{to} is what is wanted already.", param="to")
        raise Conflict(f"{to} never served here: promote it instead.", param="to")
    best = max(was, key=lambda p: p.number)
    if best.whole.digest in blocked:
        raise Conflict(
            f"{best.whole.label} was rolled back for cause and is blocked here.",
            code="version_blocked",
            param="to",
            hint="penstock blocks list says why, and penstock blocks clear lets it be deployed again.",
        )
    if best.whole == now.whole:
        raise Conflict(f"{to} is what is wanted already.", param="to")
    return best


def _place(past: Past, known: dict[str, Past]) -> int:
    """The number of the revision whose state `past` is, through rollbacks of rollbacks (a source is always older)."""
    while past.source is not None and past.source in known:
        past = known[past.source]
    return past.number
