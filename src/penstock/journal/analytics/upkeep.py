"""What is to be done with the store's files: which to merge, which to remove. A pure rule, and the loop that follows it."""

import datetime as dt
from collections.abc import Iterable

import msgspec

from penstock.journal.analytics.catalog import File

MERGE_BYTES = 64 * 1024 * 1024  # a file of this size is left alone
GROUP_BYTES = 256 * 1024 * 1024  # most that one merge reads
MERGE_FILES = 16  # small files of a day that is not over


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """For how many days exchanges are kept, by tenant; None: for ever (the disk's bound aside)."""

    default: int | None = None
    tenants: dict[str, int] = {}

    def days(self, tenant: str) -> int | None:
        """Of `tenant`."""
        return self.tenants.get(tenant, self.default)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do: groups to merge into one file each, files too old, files beyond the bound."""

    merge: tuple[tuple[File, ...], ...] = ()
    expired: tuple[File, ...] = ()
    beyond: tuple[File, ...] = ()


def plan_upkeep(files: Iterable[File], today: str, retention: Retention, disk_bytes: int) -> Plan:
    """What `files` need on the UTC day `today` (YYYY-MM-DD).

    A day goes whole, with its tenant, when it is older than the tenant's days. If what is left has more than `disk_bytes`, the oldest days go, of
    all tenants, and of today one file after the other. A day that is over is merged as soon as it has more than one small file or one that was never merged; today's when there
    are many.
    """
    kept: list[File] = []
    expired: list[File] = []
    for file in sorted(files, key=lambda one: (one.day, one.path)):
        days = retention.days(file.tenant)
        (expired if days is not None and age(file.day, today) > days else kept).append(file)
    beyond: list[File] = []
    excess = sum(file.bytes for file in kept) - disk_bytes
    while excess > 0 and kept:
        oldest = kept[0].day
        going = [file for file in kept if file.day == oldest] if oldest < today else kept[:1]
        kept = kept[len(going) :]
        beyond += going
        excess -= sum(file.bytes for file in going)
    return Plan(merge=tuple(_groups(kept, today)), expired=tuple(expired), beyond=tuple(beyond))


def age(day: str, today: str) -> int:
    """How many days `day` lies before `today`."""
    return (dt.date.fromisoformat(today) - dt.date.fromisoformat(day)).days


def _groups(files: Iterable[File], today: str) -> Iterable[tuple[File, ...]]:
    partitions: dict[tuple[str, str, str], list[File]] = {}
    for file in files:
        if file.bytes < MERGE_BYTES:
            partitions.setdefault((file.table, file.day, file.tenant), []).append(file)
    for (_, day, _), small in partitions.items():
        over = day < today
        if len(small) >= MERGE_FILES or (over and (len(small) > 1 or not small[0].merged)):
            yield tuple(_within(small, GROUP_BYTES))


def _within(files: Iterable[File], most: int) -> Iterable[File]:
    """The first of `files` that have `most` bytes together: the rest is for another time."""
    for file in files:
        most -= file.bytes
        if most < 0:
            return
        yield file
