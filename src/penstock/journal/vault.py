"""Where a gateway worker has content sealed: keys that it cannot get cost it the content, never the request; both are counted."""

import asyncio
import logging

from penstock.core.errors import PenstockError, Unavailable
from penstock.journal.keystore import Keymaker
from penstock.journal.sealing import Messages, Replies

_log = logging.getLogger("penstock.journal")
_RETRY_S = 1.0


class Vault:
    """Seals content under its subjects' keys.

    Attributes:
        kept: contents that were sealed.
        lost: contents that a policy wanted kept, and that could not be sealed.
    """

    def __init__(self, keys: Keymaker) -> None:
        self.kept = 0
        self.lost = 0
        self._keys = keys
        self._told = ""

    def seal(
        self, tenant: str, subject: str, record: str, messages: Messages, replies: Replies
    ) -> tuple[str, bytes] | None:
        """The id of the key and the sealed bytes; None, and counted, if it cannot be done. It never raises."""
        try:
            key = self._keys.key_of(tenant, subject)
            sealed = key.seal(tenant, record, messages, replies)
        except (OSError, PenstockError, ValueError) as error:
            self.lost += 1
            if str(error) != self._told:
                self._told = str(error)
                _log.error("content of requests cannot be sealed and is not kept: %s", error)
            return None
        self.kept += 1
        return key.id, sealed

    async def strict(self) -> None:
        """Return when the keys of all that was sealed are on the disk.

        Raises:
            Unavailable: if they could not be written there.
        """
        if not self._keys.unsynced:
            return
        try:
            await asyncio.to_thread(self._keys.sync)
        except OSError:
            raise Unavailable("The keys of content could not be synced to disk.", retry_after=_RETRY_S) from None
