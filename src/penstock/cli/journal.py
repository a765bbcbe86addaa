"""`penstock journal tail|cat|verify|stats`: reads the journal in the data folder; nothing has to run."""

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import click

from penstock.cli.session import Session, with_session
from penstock.cli.show import size, table, when
from penstock.core.errors import Damaged, NotFound

_POLL_S = 0.2
_worker = click.option("--worker", help="Only this worker's, such as gateway-0.")


@click.group()
def journal() -> None:
    """The exchange log of the gateways on this machine."""


def _folder(session: Session) -> Path:
    folder = Path(session.settings.data) / "journal"
    if not folder.is_dir():
        raise NotFound(f"There is no journal in {session.settings.data}; name the data folder with --data.")
    return folder


def _line(worker: str, segment: int, offset: int, record: Any) -> dict[str, Any]:
    import msgspec

    return {"worker": worker, "segment": segment, "offset": offset, "record": msgspec.to_builtins(record)}


def _summary(worker: str, record: Any) -> str:
    from penstock.core.exchange import Exchange, Opened

    if isinstance(record, Opened):
        return f"{when(record.exchange.at)} {worker} {record.exchange.id} opened, streaming {record.exchange.version}"
    if isinstance(record, Exchange):
        milliseconds = record.phases.done / 1e6
        return (
            f"{when(record.at)} {worker} {record.id} {record.status} {record.outcome} {record.route or record.model} "
            f"{record.version} {record.arm} {record.usage.prompt}+{record.usage.completion} tokens {milliseconds:.1f} ms"
            + (f" {record.error}" if record.error else "")
        )
    return f"{when(record.received)} {worker} {record.id} {record.kind} about {record.request or record.user}"


@journal.command("tail")
@_worker
@click.option("-n", "--count", type=click.IntRange(1), default=10, show_default=True, help="How many.")
@click.option("--follow", is_flag=True, help="Go on as records come, until Ctrl-C.")
@with_session
def tail(session: Session, worker: str | None, count: int, follow: bool) -> None:
    """The last records."""
    from penstock.journal.inspect import tail as last

    folder = _folder(session)
    found = last(folder, worker, count)
    lines = [_line(name, position.segment, position.offset, record) for name, position, record in found]
    if session.as_json and not follow:
        click.echo(json.dumps({"records": lines}, indent=2))
        return
    for (name, _, record), line in zip(found, lines, strict=True):
        click.echo(json.dumps(line) if session.as_json else _summary(name, record))
    if follow:
        _follow(session, folder, worker)


def _follow(session: Session, folder: Path, worker: str | None) -> None:
    from penstock.journal.format import Position
    from penstock.journal.inspect import workers
    from penstock.journal.reader import JournalReader
    from penstock.journal.segments import list_segments, segment_sizes

    readers: dict[str, JournalReader] = {}
    for name in workers(folder):
        sizes = segment_sizes(folder / name)
        newest = list_segments(folder / name)[-1]
        readers[name] = JournalReader(folder / name, Position(newest, sizes[newest]))
    while True:
        moved = False
        for name in workers(folder):
            if worker not in (None, name):
                continue
            batch = readers.setdefault(name, JournalReader(folder / name)).read()
            if batch is None:
                continue
            moved = True
            for position, record in batch.records():
                line = _line(name, position.segment, position.offset, record)
                click.echo(json.dumps(line) if session.as_json else _summary(name, record))
        if not moved:
            sys.stdout.flush()
            time.sleep(_POLL_S)


@journal.command("cat")
@_worker
@click.option("--content", is_flag=True, help="Open the content that was kept; control is asked, and records it.")
@with_session
def cat(session: Session, worker: str | None, content: bool) -> None:
    """Every record as a line of JSON, one worker after the other."""
    from penstock.core.exchange import Exchange, Observation
    from penstock.journal.inspect import cat as every
    from penstock.journal.keyring import open_keys
    from penstock.journal.reading import open_content
    from penstock.journal.telling import open_texts

    folder = _folder(session)
    keys = None
    if content:
        keys = open_keys(session.settings, make=False)
        source = f"journal of {worker or 'all workers'} in {folder} on {socket.gethostname()}"
        session.api.send("POST", "/content/readings", {"source": source[-200:]})
    for name, position, record in every(folder, worker):
        line = _line(name, position.segment, position.offset, record)
        opened = None
        if keys is not None and isinstance(record, Exchange):
            opened = open_content(keys, record)
        elif keys is not None and isinstance(record, Observation) and record.content is not None:
            opened = open_texts(keys, record)
        if opened is not None:
            line["record"]["content"] = {"state": opened.state, "why": opened.why} | opened.told
        click.echo(json.dumps(line))


@journal.command("verify")
@_worker
@click.option("--content", is_flag=True, help="Also open every content, without showing it.")
@with_session
def verify(session: Session, worker: str | None, content: bool) -> None:
    """Check every byte: frames, gaps, requests that stand there twice. Exit status 1 if anything is wrong.

    A content whose key was destroyed is not wrong; one that was changed, or whose key is of elsewhere, is told.
    """
    import msgspec

    from penstock.journal.inspect import verify as check
    from penstock.journal.keyring import open_keys

    keys = open_keys(session.settings, make=False) if content else None
    found = check(_folder(session), worker, keys)
    document = [msgspec.to_builtins(one) | {"sound": one.sound} for one in found]

    def people() -> None:
        table(
            session.console,
            ("WORKER", "SEGMENTS", "RECORDS", "SIZE", "OPEN STREAMS", "CONTENT", "STATE"),
            [
                (
                    one.worker,
                    one.segments,
                    one.records,
                    size(one.bytes),
                    len(one.open),
                    [f"{count} {state}" for state, count in sorted(one.contents.items())],
                    "sound" if one.sound else "DAMAGED",
                )
                for one in found
            ],
            empty="No worker has written anything.",
        )

    session.answer({"workers": document}, people)
    wrong = [one for one in found if not one.sound]
    if wrong:
        one = wrong[0]
        places = [f"segment {d.segment}, bytes {d.start} to {d.end}: {d.reason}" for d in one.damage[:3]]
        places += [f"segment {number} is missing" for number in one.missing[:3]]
        places += [f"{identity} stands there twice" for identity in one.repeated[:3]]
        raise Damaged(f"The journal of {one.worker} is damaged: {'; '.join(places)}.")


@journal.command("stats")
@_worker
@with_session
def stats(session: Session, worker: str | None) -> None:
    """What stands in it, in numbers."""
    import msgspec

    from penstock.journal.inspect import stats as count

    found = count(_folder(session), worker)
    session.answer(
        {"workers": [msgspec.to_builtins(one) for one in found]},
        lambda: table(
            session.console,
            ("WORKER", "SIZE", "RECORDS", "OUTCOMES", "ROUTES", "TOKENS", "COST", "FIRST", "LAST"),
            [
                (
                    one.worker,
                    size(one.bytes),
                    one.records,
                    one.outcomes,
                    one.routes,
                    f"{one.prompt_tokens}+{one.completion_tokens}",
                    f"{one.cost_nanousd / 1e9:.4f} USD",
                    when(one.first),
                    when(one.last),
                )
                for one in found
            ],
            empty="No worker has written anything.",
        ),
    )
