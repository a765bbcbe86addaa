"""A limit on failed logins: an address that shows keys nobody knows is refused for a while, before anything is looked up for it."""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from penstock.core.errors import RateLimited

CONSOLE = "console"  # the host that calls of the console come from, which tells whom it asks for
FORWARDED = "x-penstock-for"
_MOST_ADDRESSES = 16_384
_MOST_KEYS = 16_384
_PREFIX = 64  # of IPv6: what one customer is given


class _Bucket(msgspec.Struct):
    """Failures that an address has left."""

    left: float
    at: float


class Logins:
    """Who failed how often, by address. Keys that were right lately pass whatever their address has done: nobody is locked out by a neighbour.

    Attributes:
        refused: how many were refused unseen.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        """`per_minute` failures are free for an address at once, and as many each minute."""
        self._most = float(per_minute)
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._right: OrderedDict[str, None] = OrderedDict()  # hashes of keys
        self.refused = 0

    def check(self, address: str, key_hash: str) -> None:
        """See that a key may be looked up.

        Raises:
            RateLimited: if its address has failed too often, and the key was not right lately.
        """
        bucket = self._buckets.get(_network(address))
        if bucket is None or self._left(bucket) >= 1 or key_hash in self._right:
            return
        self.refused += 1
        raise RateLimited(
            "Too many keys that nobody knows came from your address: wait a little.",
            code="too_many_failed_logins",
            retry_after=60.0 / self._most,
        )

    def failed(self, address: str) -> None:
        """A key from there was not known, or not valid any more."""
        network = _network(address)
        bucket = self._buckets.pop(network, None) or _Bucket(self._most, self._clock())
        self._buckets[network] = _Bucket(max(0.0, self._left(bucket) - 1), self._clock())
        if len(self._buckets) > _MOST_ADDRESSES:
            self._buckets.popitem(last=False)

    def right(self, key_hash: str) -> None:
        """A key was right."""
        self._right[key_hash] = None
        self._right.move_to_end(key_hash)
        if len(self._right) > _MOST_KEYS:
            self._right.popitem(last=False)

    def wrong(self, key_hash: str) -> None:
        """A key that may have been right is so no more."""
        self._right.pop(key_hash, None)

    def _left(self, bucket: _Bucket) -> float:
        return min(self._most, bucket.left + (self._clock() - bucket.at) * self._most / 60.0)


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, _PREFIX), strict=False))
