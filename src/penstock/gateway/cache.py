"""The response cache: whole answers, given again to the same tenant for the same question."""

from collections import OrderedDict

from blake3 import blake3

from penstock.core.snapshot import CachePolicy
from penstock.gateway.entry import Entry
from penstock.wire.edit import canonical
from penstock.wire.envelope import Envelope

# What a question is called by, not what it asks.
LABELS = frozenset({"user", "metadata", "stream", "stream_options"})
_OVERHEAD = 512  # bytes of an entry beside its body and key


class Cache:
    """The most recently used entries, bounded by bytes. Times are handed in.

    When it is full, the tenant that holds the most makes room: nobody pushes another one's entries out below an equal share.
    """

    def __init__(self, max_bytes: int) -> None:
        self.size = 0
        self._max = max_bytes
        self._entries: dict[bytes, Entry] = {}
        self._recent: dict[str, OrderedDict[bytes, None]] = {}  # by tenant, the least recently used first
        self._sizes: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float) -> Entry | None:
        """The entry under `key`, if it has not expired at `now`."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now >= entry.expires:
            self._remove(key, entry.tenant)
            return None
        self._recent[entry.tenant].move_to_end(key)
        return entry

    def put(self, key: bytes, entry: Entry) -> None:
        """Keeps `entry`, unless it alone is more than an eighth of the cache; the least recently used make room."""
        size, tenant = len(entry.body) + _OVERHEAD, entry.tenant
        if size > self._max // 8:
            return
        if (old := self._entries.get(key)) is not None:
            self._remove(key, old.tenant)
        self._entries[key] = entry
        self._recent.setdefault(tenant, OrderedDict())[key] = None
        self._sizes[tenant] = self._sizes.get(tenant, 0) + size
        self.size += size
        while self.size > self._max:
            sizes = self._sizes
            most = tenant if sizes[tenant] * len(sizes) > self._max else max(sizes, key=sizes.__getitem__)
            self._remove(next(iter(self._recent[most])), most)

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self._recent.clear()
        self._sizes.clear()
        self.size = 0

    def _remove(self, key: bytes, tenant: str) -> None:
        size = len(self._entries.pop(key).body) + _OVERHEAD
        recent = self._recent[tenant]
        del recent[key]
        self.size -= size
        if recent:
            self._sizes[tenant] -= size
        else:
            del self._recent[tenant], self._sizes[tenant]


def cacheable(policy: CachePolicy, envelope: Envelope) -> bool:
    """Whether an answer to `envelope` may be given again: where sampling is not, unless the route says that it may."""
    return policy.sampled or envelope.temperature == 0 or envelope.deterministic


def cache_names(*, tenant: str, source: str, policy: str, operation: str, stream: bool) -> bytes:
    """What a key begins with before it is hashed: nobody but the same tenant, asking the same weights in the same way, has it.

    Args:
        tenant: whose cache it is.
        source: the digest of the version that answers, or what stands for it.
        policy: what tells the guard policy that was applied from all others.
        operation: chat or completions.
        stream: whether the answer is a stream.
    """
    names = "\0".join((tenant, source, policy, operation, "s" if stream else "j")).encode()
    return len(names).to_bytes(4, "little") + names


def cache_key(names: bytes, body: bytes) -> bytes:
    """The key of a question: `names` and the request as it would be sent on; labels such as `user` do not count."""
    key: bytes = blake3(names + canonical(body, LABELS)).digest()
    return key
