"""Answers that gateways keep for each other, in Redis: for a time, encrypted, under names that tell no text.

A name begins with its tenant's digest, keyed with the secret that the gateways of one installation share, as all digests here are. Values are
sealed with AES-GCM under a key from the same secret, with their name as associated data: a value that is moved to another tenant's name
opens as nothing. Redis is a help and no need: what it cannot say within `wait_s` is not there, and after a failure it is not asked for a while.
"""

import asyncio
import hashlib
import logging
import os
import time
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from penstock.core.errors import BadRequest

PREFIX = "penstock:cache:"
WAIT_S = 0.05
PAUSE_S = 1.0  # not asked for so long after a failure; doubled each time
LONGEST_PAUSE_S = 30.0
MOST_BYTES = 1 << 20  # of a value; larger ones are not shared
MOST_PENDING = 256  # values on their way; more are not shared
MOST_ROWS = 512  # of a shelf
_NONCE = 12

_log = logging.getLogger("penstock.cache")


class RedisCache:
    """One gateway worker's client.

    Attributes:
        failures: times that Redis did not do what it was asked.
    """

    def __init__(self, url: str, secret: bytes, *, wait_s: float = WAIT_S) -> None:
        """A client of the Redis at `url` (`redis://`, `rediss://` or `unix://`); `secret` is the same for all who share.

        Raises:
            BadRequest: if the URL is none.
        """
        self.failures = 0
        self._wait_s = wait_s
        self._name_key = hashlib.blake2b(b"names", key=hashlib.sha256(secret).digest()).digest()[:32]
        self._seal = AESGCM(hashlib.blake2b(b"values", key=hashlib.sha256(secret).digest()).digest()[:32])
        self._resting_until = 0.0
        self._pause_s = PAUSE_S
        self._pending: set[asyncio.Task[None]] = set()
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=8,
                timeout=wait_s,
                socket_timeout=wait_s,
                socket_connect_timeout=wait_s,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise BadRequest(f"gateway.redis_url is wrong: {error}.", param="gateway.redis_url") from None
        self._redis: Redis = Redis(connection_pool=pool)

    def name(self, tenant: str, kind: str, digest: bytes) -> str:
        """What a value of `tenant` is kept under: keyed digests, the tenant's first."""
        whose = hashlib.blake2b(tenant.encode(), key=self._name_key, digest_size=16).hexdigest()
        what = hashlib.blake2b(tenant.encode() + b"\0" + digest, key=self._name_key, digest_size=32).hexdigest()
        return f"{PREFIX}{whose}:{kind}:{what}"

    async def fetch(self, tenant: str, key: bytes, shelf: bytes, after: str) -> tuple[bytes | None, list[bytes], str]:
        """The value under `key`, if there is one; with a `shelf`, the rows put on it since `after`, and the mark to go on from."""
        name = self.name(tenant, "answer", key)
        rows_name = self.name(tenant, "shelf", shelf) if shelf else ""
        pipe = self._redis.pipeline(transaction=False)
        pipe.get(name)
        if shelf:
            pipe.xrange(rows_name, f"({after}" if after else "-", "+", count=MOST_ROWS)
        said = await self._asked(pipe.execute())
        if said is None:
            return None, [], after
        rows = []
        for mark, fields in said[1] if shelf else ():
            after = mark.decode()
            row = self._opened(rows_name, fields.get(b"row"))
            if row is not None:
                rows.append(row)
        return self._opened(name, said[0]), rows, after

    async def value(self, tenant: str, key: bytes) -> bytes | None:
        """The value under `key`, if there is one."""
        name = self.name(tenant, "answer", key)
        return self._opened(name, await self._asked(self._redis.get(name)))

    def put(self, tenant: str, key: bytes, value: bytes, ttl_s: float, shelf: bytes, row: bytes) -> None:
        """Keeps `value` for `ttl_s` seconds, and with a `shelf` the row that tells of it. It happens later, or not at all."""
        if len(value) > MOST_BYTES or len(self._pending) >= MOST_PENDING or time.monotonic() < self._resting_until:
            return
        task = asyncio.get_running_loop().create_task(self._put(tenant, key, value, ttl_s, shelf, row))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _put(self, tenant: str, key: bytes, value: bytes, ttl_s: float, shelf: bytes, row: bytes) -> None:
        lasts = max(1, int(ttl_s * 1000))
        name = self.name(tenant, "answer", key)
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(name, self._sealed(name, value), px=lasts)
        if shelf:
            rows = self.name(tenant, "shelf", shelf)
            pipe.xadd(rows, {b"row": self._sealed(rows, row)}, maxlen=MOST_ROWS, approximate=False)
            pipe.pexpire(rows, lasts)
        await self._asked(pipe.execute())

    async def written(self) -> None:
        """Returns when what was put until now has been sent, or has failed."""
        if self._pending:
            await asyncio.wait(set(self._pending))

    async def close(self) -> None:
        """Ends; what is on its way is given a moment."""
        await self.written()
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def _asked(self, answer: Any) -> Any:
        """What Redis says; None if it does not within the time."""
        now = time.monotonic()
        if now < self._resting_until:
            answer.close()
            return None
        try:
            async with asyncio.timeout(self._wait_s):
                said = await answer
        except (RedisError, OSError, TimeoutError) as error:
            self.failures += 1
            if self._resting_until <= now:
                self._resting_until = now + self._pause_s
                self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2)
                _log.warning("the shared cache does not answer: %s", str(error) or type(error).__name__)
            return None
        self._pause_s = PAUSE_S
        return said

    def _sealed(self, name: str, value: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._seal.encrypt(nonce, value, name.encode())

    def _opened(self, name: str, value: bytes | None) -> bytes | None:
        if value is None or len(value) < _NONCE:
            return None
        try:
            return self._seal.decrypt(value[:_NONCE], value[_NONCE:], name.encode())
        except InvalidTag:
            return None
