"""What was said in the newest requests of a version, of those whose policy keeps content and whose keys are still there."""

import heapq
from pathlib import Path

from penstock.core.errors import Damaged
from penstock.core.exchange import Exchange
from penstock.journal.content import Said, unseal
from penstock.journal.inspect import cat
from penstock.journal.keystore import Keystore
from penstock.journal.sealing import SubjectKey


def newest_said(journal: Path, keys: Keystore, version: str, count: int) -> list[Said]:
    """Of at most `count` answered requests of `version` (NAME:LABEL), the newest first; whole texts alone.

    Content of a key that was destroyed, or that cannot be read, is left out.
    """
    answered = (
        (record.at, record.id, record)
        for _, _, record in cat(journal)
        if isinstance(record, Exchange)
        and record.version == version
        and record.outcome == "ok"
        and record.content is not None
        and not record.content.cut
    )
    found = []
    for _, _, exchange in heapq.nlargest(count, answered, key=lambda one: one[:2]):
        said = _opened(keys, exchange)
        if said is not None and said.messages:
            found.append(said)
    return found


def _opened(keys: Keystore, exchange: Exchange) -> Said | None:
    content = exchange.content
    key = keys.find(content.key) if content is not None else None
    if content is None or not isinstance(key, SubjectKey):
        return None
    try:
        return unseal(key, exchange.tenant, exchange.id, content)
    except Damaged:
        return None
