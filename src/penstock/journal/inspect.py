"""What `penstock journal tail|cat|verify|stats` tell: functions that return values; the command line prints them."""

import re
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

from penstock.core.errors import Damaged, NotFound
from penstock.core.exchange import Content, Exchange, Observation, Opened, Record
from penstock.journal.content import LEAST_BYTES
from penstock.journal.format import (
    FRAME_HEAD_BYTES,
    HEADER_BYTES,
    Position,
    decode_header,
    decode_payload,
    segment_name,
)
from penstock.journal.keystore import Keystore
from penstock.journal.reader import Damage, JournalReader, iterate
from penstock.journal.reading import open_content
from penstock.journal.segments import list_segments, segment_sizes
from penstock.journal.telling import open_texts

_KEY = re.compile(r"[0-9a-f]{32}")


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's journal, checked byte by byte.

    `missing` are segment numbers without a file between others; `open` the ids of streams without an end, which are running now or wait
    for a restart to close them; `repeated` the ids of exchanges that stand there more than once; `contents` counts the contents by what
    became of them: `sealed` if they were not opened, else readable, destroyed, lost (their key is not there) or damaged.
    """

    worker: str
    segments: int
    records: int
    bytes: int
    damage: tuple[Damage, ...] = ()
    missing: tuple[int, ...] = ()
    open: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    contents: dict[str, int] = {}

    @property
    def sound(self) -> bool:
        """Whether every byte is accounted for."""
        return not (self.damage or self.missing or self.repeated)


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in one worker's journal, in numbers. Times are Unix seconds."""

    worker: str
    segments: int
    bytes: int
    records: dict[str, int]  # by type
    outcomes: dict[str, int]  # of exchanges
    routes: dict[str, int]
    first: float = 0.0
    last: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nanousd: int = 0


def workers(journal: Path) -> list[str]:
    """The workers that have a journal below `journal` (DATA/journal)."""
    if not journal.is_dir():
        return []
    return sorted(p.name for p in journal.iterdir() if p.is_dir() and list_segments(p))


def cat(journal: Path, worker: str | None = None) -> Iterator[tuple[str, Position, Record]]:
    """Every record of `worker`, or of all, one worker after the other.

    Raises:
        NotFound: if there is no such worker.
    """
    for name in _chosen(journal, worker):
        for position, record in iterate(journal / name):
            yield name, position, record


def tail(journal: Path, worker: str | None = None, count: int = 10) -> list[tuple[str, Position, Record]]:
    """The last `count` records, by time, of the newest segments that have so many.

    Raises:
        NotFound: if there is no such worker.
    """
    found: list[tuple[str, Position, Record]] = []
    for name in _chosen(journal, worker):
        mine: deque[tuple[str, Position, Record]] = deque(maxlen=count)
        for segment in reversed(list_segments(journal / name)):
            part = [
                (name, p, r)
                for p, r in iterate(journal / name, Position(segment, HEADER_BYTES))
                if p.segment == segment
            ]
            mine.extendleft(reversed(part[-(count - len(mine)) :] if len(mine) < count else []))
            if len(mine) >= count:
                break
        found += mine
    found.sort(key=lambda entry: _time(entry[2]))
    return found[-count:]


def find(journal: Path, request: str) -> list[tuple[str, Position, Record]]:
    """Everything that the journals hold about the request with this id."""
    return [
        (name, position, record)
        for name, position, record in cat(journal)
        if request
        in (
            record.id if isinstance(record, Exchange) else "",
            record.exchange.id if isinstance(record, Opened) else "",
            record.request if isinstance(record, Observation) else "",
        )
    ]


def verify(journal: Path, worker: str | None = None, keys: Keystore | None = None) -> list[Verified]:
    """Check every segment of `worker`, or of all; with `keys` the contents are opened too.

    Raises:
        NotFound: if there is no such worker.
        OSError: if the keys cannot be read.
    """
    return [_verify(journal / name, name, keys) for name in _chosen(journal, worker)]


def stats(journal: Path, worker: str | None = None) -> list[Stats]:
    """Count what is in the journal of `worker`, or of all.

    Raises:
        NotFound: if there is no such worker.
    """
    return [_stats(journal / name, name) for name in _chosen(journal, worker)]


def _chosen(journal: Path, worker: str | None) -> list[str]:
    names = workers(journal)
    if worker is None:
        return names
    if worker not in names:
        raise NotFound(
            f"There is no journal of a worker {worker!r} in {journal}; there are: {', '.join(names) or 'none'}."
        )
    return [worker]


def _verify(directory: Path, worker: str, keys: Keystore | None) -> Verified:
    segments = list_segments(directory)
    damage: list[Damage] = []
    for segment in segments:
        with (directory / segment_name(segment)).open("rb") as file:
            try:
                header = decode_header(file.read(HEADER_BYTES))
            except Damaged as error:
                damage.append(Damage(segment=segment, start=0, end=HEADER_BYTES, reason=error.message))
                continue
        if header.segment != segment or header.worker != worker:
            reason = f"the header names segment {header.segment} of {header.worker!r}"
            damage.append(Damage(segment=segment, start=0, end=HEADER_BYTES, reason=reason))
    records = 0
    opened: set[str] = set()
    closed: set[str] = set()
    repeated: set[str] = set()
    contents: Counter[str] = Counter()
    reader = JournalReader(directory)
    try:
        while (batch := reader.read()) is not None:
            damage += [d for d in batch.damage if d.start]
            for offset, frame in batch.frames:
                records += 1
                try:
                    record = decode_payload(memoryview(frame)[FRAME_HEAD_BYTES:])
                except Damaged as error:
                    damage.append(
                        Damage(segment=batch.segment, start=offset, end=offset + len(frame), reason=error.message)
                    )
                    continue
                if isinstance(record, Opened):
                    opened.add(record.exchange.id)
                elif isinstance(record, Exchange):
                    (repeated if record.id in closed else closed).add(record.id)
                if not isinstance(record, Opened) and record.content is not None:
                    state, why = _content_state(record, record.content, keys)
                    contents[state] += 1
                    if state == "damaged":
                        damage.append(Damage(segment=batch.segment, start=offset, end=offset + len(frame), reason=why))
        sizes = segment_sizes(directory)
    finally:
        reader.close()
    missing = sorted(set(range(segments[0], segments[-1])) - set(segments)) if segments else []
    return Verified(
        worker=worker,
        segments=len(segments),
        records=records,
        bytes=sum(sizes.values()),
        damage=tuple(damage),
        missing=tuple(missing),
        open=tuple(sorted(opened - closed)),
        repeated=tuple(sorted(repeated)),
        contents=dict(contents),
    )


def _content_state(record: Exchange | Observation, content: Content, keys: Keystore | None) -> tuple[str, str]:
    if keys is not None:
        opened = open_content(keys, record) if isinstance(record, Exchange) else open_texts(keys, record)
        return opened.state, opened.why
    if len(content.sealed) < LEAST_BYTES or not _KEY.fullmatch(content.key):
        return "damaged", f"the content of {record.id} is no sealed content"
    return "sealed", ""


def _stats(directory: Path, worker: str) -> Stats:
    sizes = segment_sizes(directory)
    records: dict[str, int] = {}
    outcomes: dict[str, int] = {}
    routes: dict[str, int] = {}
    first = last = 0.0
    prompt = completion = cost = 0
    for _, record in iterate(directory):
        kind = type(record).__name__.lower()
        records[kind] = records.get(kind, 0) + 1
        at = _time(record)
        first = min(first or at, at)
        last = max(last, at)
        if isinstance(record, Exchange):
            outcomes[record.outcome] = outcomes.get(record.outcome, 0) + 1
            routes[record.route] = routes.get(record.route, 0) + 1
            prompt += record.usage.prompt
            completion += record.usage.completion
            cost += record.cost_nanousd
    return Stats(
        worker=worker,
        segments=len(sizes),
        bytes=sum(sizes.values()),
        records=records,
        outcomes=outcomes,
        routes=routes,
        first=first,
        last=last,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cost_nanousd=cost,
    )


def _time(record: Record) -> float:
    if isinstance(record, Observation):
        return record.received
    return record.exchange.at if isinstance(record, Opened) else record.at
