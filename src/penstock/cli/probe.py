"""`penstock probe`: a few requests through a version's weights again, off line, to see what serving does not show."""

import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.models.pull import fetch
from penstock.cli.session import Session, with_session
from penstock.cli.show import pairs, table
from penstock.core.errors import NotFound
from penstock.core.references import parse_reference

if TYPE_CHECKING:
    from penstock.engine.probe.record import ProbeRecord, Source
    from penstock.engine.probe.run import Asked


@click.command()
@click.argument("version", metavar="REF|DIRECTORY")
@click.option("--prompts", type=click.Path(dir_okay=False, path_type=Path), help="Requests to run, one a line.")
@click.option("--requests", type=click.IntRange(1, 100_000), default=32, show_default=True, help="Most requests.")
@click.option(
    "--tokens", type=click.IntRange(2, 32768), default=512, show_default=True, help="Most tokens of one request."
)
@with_session
def probe(session: Session, version: str, prompts: Path | None, requests: int, tokens: int) -> None:
    """Run a few requests through the weights of a version again: attention entropy, attention-sink mass, perplexity.

    REF is a version in the registry, whose weights are fetched; DIRECTORY a folder with `safetensors` and a build. Without --prompts the newest
    requests of the version are run whose policy keeps content, out of the journal in the data folder; control is asked, and records it.

    The record stands in DATA/probes, and the shipper tells it to Prometheus. It computes with numpy, in this process, beside the traffic.
    """
    from penstock.engine.probe.records import save_record
    from penstock.engine.probe.requests import read_prompts
    from penstock.engine.probe.run import Probe

    with ExitStack() as stack:
        folder, name, digest = _weights(session, version, stack)
        asked = read_prompts(prompts)[:requests] if prompts is not None else _recorded(session, name, requests)
        ready = Probe(folder)
        record = _run(session, ready, asked, name, digest, "journal" if prompts is None else "prompts", tokens)
    data = Path(session.settings.data)
    file = save_record(data / "probes", record) if data.is_dir() else None
    session.answer(_told(record, file), lambda: _show(session, record, file))


def _weights(session: Session, version: str, stack: ExitStack) -> tuple[Path, str, str]:
    """The folder of the version, its name and digest."""
    if Path(version).is_dir():
        return Path(version), Path(version).resolve().name, ""
    parse_reference(version)
    found = session.api.get("/resolve", ref=version)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-probe-")))
    fetch(session, found, folder)
    return folder, f"{found['model']}:{found['label']}", found["digest"]


def _recorded(session: Session, version: str, count: int) -> "list[Asked]":
    from penstock.engine.probe.run import Asked
    from penstock.journal.keyring import open_keys
    from penstock.journal.said import newest_said
    from penstock.wire.spoken import CALL

    journal = Path(session.settings.data) / "journal"
    said = []
    if journal.is_dir():
        keys = open_keys(session.settings, make=False)
        source = f"probe of {version} on {socket.gethostname()}, out of {journal}"
        session.api.send("POST", "/content/readings", {"source": source[:200]})
        try:
            said = newest_said(journal, keys, version, count)
        finally:
            keys.close()
    if not said:
        raise NotFound(
            f"No request of {version} with content is in {journal}.",
            code="nothing_to_probe",
            hint="Name a file with --prompts, or let a policy keep content: capture: masked.",
        )
    return [
        Asked(
            tuple(asked for asked in one.messages if asked[0] != CALL),
            "".join(text for index, field, text in one.replies if not index and field == "content"),
        )
        for one in said
    ]


def _run(
    session: Session, ready: Any, asked: "list[Asked]", name: str, digest: str, source: "Source", tokens: int
) -> "ProbeRecord":
    from rich.progress import Progress

    with Progress(console=session.console, transient=True, disable=session.as_json) as progress:
        job = progress.add_task("running", total=len(asked))
        found: ProbeRecord = ready.run(
            asked, model=name, digest=digest, source=source, most_tokens=tokens, done=lambda: progress.advance(job)
        )
    return found


def _told(record: "ProbeRecord", file: Path | None) -> dict[str, Any]:
    import msgspec

    told: dict[str, Any] = msgspec.to_builtins(record)
    return told | {"file": str(file) if file is not None else None}


def _show(session: Session, record: "ProbeRecord", file: Path | None) -> None:
    pairs(
        session.console,
        [
            ("model", record.model),
            ("requests", f"{record.requests}, {record.tokens} tokens, from the {record.source}"),
            ("attention entropy", f"{record.entropy_ratio:.4f} of even attention"),
            ("attention sink", f"{record.sink_ratio:.4f} of attention goes to the first token"),
            ("perplexity", None if record.perplexity is None else f"{record.perplexity:.4f} of {record.scored} tokens"),
            ("took", f"{record.seconds:.1f} s"),
            ("record", None if file is None else str(file)),
        ],
    )
    table(
        session.console,
        ("LAYER", "ENTROPY (NATS)", "OF EVEN", "SINK"),
        [
            (one.layer, f"{one.entropy_nats:.4f}", f"{one.entropy_ratio:.4f}", f"{one.sink_ratio:.4f}")
            for one in record.layers
        ],
        empty="No layer.",
    )
