"""A Snapshot in one number, so that two sides of a delta see whether they came to the same.

The sum of its entries' hashes: their order does not matter, and a change costs what changed, not what there is (an additive
multiset hash: Clarke et al., "Incremental multiset hash functions", ASIACRYPT 2003). It finds mistakes; it is no signature.
"""

from hashlib import blake2b

import msgspec

from penstock.core.snapshot import TABLES, Snapshot, SnapshotDelta

_MODULUS = 1 << 128
_encode = msgspec.json.Encoder().encode


def _hash(table: str, entry: msgspec.Struct) -> int:
    return int.from_bytes(blake2b(_encode(entry), digest_size=16, person=table.encode()).digest(), "big")


def entries_checksum(snapshot: Snapshot) -> int:
    """The checksum of all entries. O(n): some 4 us an entry."""
    return sum(_hash(table, entry) for table, _ in TABLES for entry in getattr(snapshot, table)) % _MODULUS


def advanced(checksum: int, old: Snapshot, delta: SnapshotDelta) -> int:
    """The sum of the entries to which `delta` leads from `old`, whose own sum is `checksum`. It costs what has changed, not what is there."""
    for table, key in TABLES:
        after = getattr(delta, table)
        names = {getattr(entry, key) for entry in after}
        names.update(delta.gone.get(table, ()))
        if not names:
            continue
        checksum -= sum(_hash(table, entry) for entry in getattr(old, table) if getattr(entry, key) in names)
        gone = set(delta.gone.get(table, ()))
        checksum += sum(_hash(table, entry) for entry in after if getattr(entry, key) not in gone)
    return checksum % _MODULUS


def result_checksum(entries: int, generation: int, environment: str) -> str:
    """What a delta carries: of the entries that it leads to, and of what they are."""
    head = blake2b(f"{generation}/{environment}/{entries:032x}".encode(), digest_size=16)
    return head.hexdigest()
