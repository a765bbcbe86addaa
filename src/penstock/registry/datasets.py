"""Data sets and their chain of custody: from where the data came, through whose hands, changed how, each link by digest."""

from collections.abc import Mapping

import msgspec

from penstock.core.digests import short


class Custodian(msgspec.Struct, frozen=True, kw_only=True):
    """Who was answerable for the data, and when (dates, `2026-11-23`); `until` "": still."""

    name: str
    role: str = ""
    since: str = ""
    until: str = ""


class Transformation(msgspec.Struct, frozen=True, kw_only=True):
    """What was done to make the data: of which inputs (digests), by whom, when, with which code."""

    what: str
    inputs: tuple[str, ...] = ()
    by: str = ""
    at: str = ""
    code: str = ""


class Consent(msgspec.Struct, frozen=True, kw_only=True):
    """On what ground the data may be used."""

    basis: str
    note: str = ""


class DataSet(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of a data set's record.

    Attributes:
        name: for people; the digest is what is meant.
        number: of the revision under that name, from 1.
        registered_at: Unix seconds.
    """

    name: str
    digest: str
    number: int = 1
    description: str = ""
    source: str = ""
    location: str = ""
    licence: str = ""
    consent: Consent | None = None
    custodians: tuple[Custodian, ...] = ()
    transformations: tuple[Transformation, ...] = ()
    rows: int | None = None
    size: int | None = None
    registered_by: str = ""
    registered_at: float = 0.0


class Custody(msgspec.Struct, frozen=True, kw_only=True):
    """A chain of custody.

    Attributes:
        links: the data sets, origins first, the asked one last; each once.
        gaps: what nobody has told, as sentences; none: the chain is whole.
    """

    links: tuple[DataSet, ...]
    gaps: tuple[str, ...]


def chain_of(digest: str, known: Mapping[str, DataSet]) -> Custody:
    """The chain that leads to `digest`; `known` has the newest record of each digest. Circles are told as gaps and followed once."""
    links: list[DataSet] = []
    gaps: list[str] = []
    done: set[str] = set()
    stack: list[tuple[str, str, bool]] = [(digest, "", False)]  # digest, whose input, whether its inputs are done
    open_: set[str] = set()
    while stack:
        here, of, after = stack.pop()
        if after:
            open_.discard(here)
            links.append(known[here])
            continue
        if here in open_:
            gaps.append(f"{short(here)} is an input of itself, through {of}.")
            continue
        if here in done:
            continue
        done.add(here)
        record = known.get(here)
        if record is None:
            gaps.append(f"{short(here)}{f', an input of {of},' if of else ''} is not registered.")
            continue
        gaps += _gaps(record)
        open_.add(here)
        stack.append((here, of, True))
        for made in reversed(record.transformations):
            stack += [(one, record.name, False) for one in reversed(made.inputs)]
    return Custody(links=tuple(links), gaps=tuple(gaps))


def _gaps(record: DataSet) -> list[str]:
    name = record.name
    gaps = []
    if not record.source and not any(made.inputs for made in record.transformations):
        gaps.append(f"{name} tells neither a source nor what it was made of.")
    if not record.licence:
        gaps.append(f"{name} tells no licence.")
    if record.consent is None:
        gaps.append(f"{name} does not tell on what ground it may be used (consent).")
    if not record.custodians:
        gaps.append(f"{name} names no custodian.")
    held = sorted((one for one in record.custodians if one.since), key=lambda one: one.since)
    reach = held[0].until if held else ""
    for one in held[1:]:
        if reach and reach < one.since:
            gaps.append(f"Nobody answers for {name} between {reach} and {one.since}.")
        reach = "" if not reach or not one.until else max(reach, one.until)
    if held and reach and len(held) == len(record.custodians):
        gaps.append(f"Nobody answers for {name} since {reach}.")
    return gaps
