"""`penstock pipeline run|show|list|cancel`: from files to production, step by step."""

import contextlib
import hashlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.canary_plan import given_plan, plan_flags
from penstock.cli.client import at
from penstock.cli.documents import file_argument
from penstock.cli.models.progress import progress_of
from penstock.cli.models.push import files_in, push_files, told_metadata
from penstock.cli.session import Session, with_session
from penstock.cli.show import table, when
from penstock.core.errors import BadRequest, NotFound, PenstockError, Unavailable
from penstock.core.references import Reference, parse_reference
from penstock.registry.manifest import make_manifest, manifest_digest

if TYPE_CHECKING:
    from rich.status import Status

_WAIT_S = 20.0  # of one question for what is new
_AWAY_S = 60.0  # as long as that control may be away while somebody watches
_AGAIN_S = 0.5
_ID = re.compile(r"pipe_[0-9a-z]{26}")
_MARKS = {"done": "ok", "refused": "REFUSED", "failed": "FAILED", "cancelled": "cancelled", "running": "..."}


_until = click.option(
    "--until",
    type=click.Choice(["end", "people"]),
    default="end",
    show_default=True,
    help="Watch until it has ended, or until it waits for people too.",
)


@click.group()
def pipeline() -> None:
    """Take a version from its files to production: push, scan, build, gates, deployments, a canary (docs/pipeline.md)."""


@pipeline.command("run")
@click.argument("what", metavar="[FOLDER] NAME:LABEL", nargs=-1, required=True)
@click.option(
    "--through",
    default="dev,staging,production",
    show_default=True,
    metavar="ENVS",
    help="Environments, in the order in which they are passed.",
)
@click.option("--meta", type=file_argument, help="YAML or JSON: what the version says of itself, as of models push.")
@click.option("--base", metavar="REF", help="Version that it was made from; kept in its metadata.")
@click.option(
    "--relation",
    type=click.Choice(["fine_tuned_from", "quantised_from", "distilled_from", "merged_from"]),
    help="With --base: what it is of it, kept as its lineage.",
)
@click.option(
    "--precision",
    type=click.Choice(["int8", "int4", "fp16", "fp32"]),
    help="Build to run [default: as now, else int8, if there is one].",
)
@click.option("--replicas", type=click.IntRange(1, 64), help="How many [default: as now].")
@plan_flags
@click.option(
    "--patience",
    "patience_s",
    type=click.FloatRange(0, 30 * 86400),
    default=86400.0,
    show_default=True,
    help="Seconds that approvals, signatures and cards are waited for; 0: not at all.",
)
@click.option("--reason", default="", help="Why, for the history.")
@click.option("--wait/--no-wait", default=True, help="Watch it [default: yes].")
@_until
@with_session
def run(
    session: Session,
    what: tuple[str, ...],
    through: str,
    meta: str | None,
    base: str | None,
    relation: str | None,
    precision: str | None,
    replicas: int | None,
    patience_s: float,
    reason: str,
    wait: bool,
    until: str,
    **plan: Any,
) -> int:
    """Take the files in FOLDER to production as NAME:LABEL; without FOLDER, a version that was pushed already.

    It is control that moves it on: a command that is killed may be given again, and goes on watching. The same files under the same label are the same pipeline; after a refusal
    another one begins. Exit status: 0 when the last environment is reached (or people are waited for, with --until people), 1 when it was refused, failed or cancelled, with the
    gates' figures.
    """
    folder, wanted = _named(what)
    digest, paths = _digest(session, folder, wanted)
    body = {
        "model": wanted.name,
        "label": wanted.label,
        "digest": digest,
        "environments": [one.strip() for one in through.split(",")],
        "precision": precision,
        "replicas": replicas,
        "canary": given_plan(plan),
        "patience_s": patience_s,
        "reason": reason,
    }
    told = session.api.send("POST", "/pipelines", body)
    if paths is not None and not _is_there(session, wanted):
        try:
            push_files(session, wanted, paths, told_metadata(session, meta, base, relation))
        except Unavailable:
            raise
        except PenstockError as error:  # with these files it can never go on
            session.api.send("POST", f"{at('pipelines', told['id'])}/cancel", {"reason": error.message})
            raise
    if not wait:
        session.answer(told, lambda: click.echo(f"{told['id']} is under way: penstock pipeline show {told['id']}"))
        return 0
    return _end(session, _follow(session, told["id"], until))


@pipeline.command("show")
@click.argument("which", metavar="ID|NAME:LABEL")
@click.option("--follow", is_flag=True, help="Watch it; exit status 1 if it was refused, failed or cancelled.")
@_until
@with_session
def show(session: Session, which: str, follow: bool, until: str) -> int:
    """The steps of a pipeline as they pass, with the reason where one was refused; of NAME:LABEL the newest."""
    identity = _identity(session, which)
    if follow:
        return _end(session, _follow(session, identity, until))
    told = session.api.get(at("pipelines", identity))
    session.answer(told, lambda: _show(session, told))
    return 0


@pipeline.command("list")
@click.option("--of", "model", metavar="NAME", help="Only of this model.")
@click.option("--state", type=click.Choice(["running", "done", "refused", "failed", "cancelled"]), help="Only these.")
@with_session
def list_pipelines(session: Session, model: str | None, state: str | None) -> None:
    """Pipelines, newest first."""
    found = session.api.get("/pipelines", model=model, state=state)
    session.answer(
        {"pipelines": found},
        lambda: table(
            session.console,
            ("PIPELINE", "VERSION", "STATE", "AT", "SINCE", "BY", "TELLS"),
            [
                (
                    one["id"],
                    f"{one['model']}:{one['label']}",
                    one["state"],
                    _title(_current(one)),
                    when(one["created_at"]),
                    one["principal"],
                    one["words"] or _current(one)["words"],
                )
                for one in found
            ],
            empty="There was no pipeline yet.",
        ),
    )


@pipeline.command("cancel")
@click.argument("which", metavar="ID|NAME:LABEL")
@click.option("--reason", default="", help="Why, for the record.")
@with_session
def cancel(session: Session, which: str, reason: str) -> None:
    """End a pipeline where it is: a canary that it began is taken back; what is live stays."""
    told = session.api.send("POST", f"{at('pipelines', _identity(session, which))}/cancel", {"reason": reason})
    session.answer(told, lambda: click.echo(f"{told['id']} is cancelled."))


def _named(what: tuple[str, ...]) -> tuple[Path | None, Reference]:
    """Folder, if one was given, and the version's name.

    Raises:
        BadRequest: if they are something else.
    """
    if len(what) > 2:
        raise BadRequest("Give a folder and NAME:LABEL, or NAME:LABEL alone.", param="NAME:LABEL")
    wanted = parse_reference(what[-1])
    if wanted.label is None:
        raise BadRequest(f"{what[-1]!r} has no label; write NAME:LABEL.", param="NAME:LABEL")
    folder = Path(what[0]) if len(what) == 2 else None
    if folder is not None and not folder.is_dir():
        raise BadRequest(f"{folder} is no folder.", param="FOLDER")
    return folder, wanted


def _digest(session: Session, folder: Path | None, wanted: Reference) -> tuple[str, dict[str, Path] | None]:
    """The digest that the version has or will have, and the files that it is to be made of."""
    if folder is None:
        found: str = session.api.get("/resolve", ref=str(wanted))["digest"]
        return found, None
    paths = files_in(folder)
    files: dict[str, tuple[str, int]] = {}
    with progress_of(session) as progress:
        job = progress.add_task("digest", total=sum(path.stat().st_size for path in paths.values()))
        for name, path in paths.items():
            with path.open("rb") as file:
                files[name] = (f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}", path.stat().st_size)
            progress.advance(job, files[name][1])
    return manifest_digest(make_manifest(files)), paths


def _is_there(session: Session, wanted: Reference) -> bool:
    """Whether the label has a version; control has seen that it is this one."""
    try:
        session.api.get("/resolve", ref=str(wanted))
    except NotFound:
        return False
    return True


def _identity(session: Session, which: str) -> str:
    if _ID.fullmatch(which):
        return which
    wanted = parse_reference(which)
    found = session.api.get("/pipelines", model=wanted.name, label=wanted.label, limit=1)
    if not found:
        raise NotFound(f"There was no pipeline of {which} yet.", param="NAME:LABEL")
    identity: str = found[0]["id"]
    return identity


def _follow(session: Session, identity: str, until: str) -> dict[str, Any]:
    """The pipeline once it has ended, or waits for people if that is `until`; each step is told as it passes."""
    from rich.console import Console

    errors = Console(stderr=True, highlight=False)
    said: set[int] = set()
    mark = ""
    status = errors.status("")
    with status if errors.is_terminal else contextlib.nullcontext():
        while True:
            told = _ask(session, identity, mark)
            mark = told["mark"]
            _say(session, told, said, status)
            asks = until == "people" and any(step["waits_since"] and not step["ended_at"] for step in told["steps"])
            if told["state"] != "running" or asks:
                return told


def _ask(session: Session, identity: str, mark: str) -> dict[str, Any]:
    """The pipeline once it differs from `mark`, or as it is; a control that starts again is waited for.

    Raises:
        Unavailable: if it is away for longer than that takes.
    """
    end = time.monotonic() + _AWAY_S
    while True:
        try:
            told: dict[str, Any] = session.api.get(at("pipelines", identity), than=mark, wait=_WAIT_S)
        except Unavailable:
            if time.monotonic() >= end:
                raise
            time.sleep(_AGAIN_S)
        else:
            return told


def _say(session: Session, told: dict[str, Any], said: set[int], status: "Status") -> None:
    for step in told["steps"]:
        if step["state"] in ("done", "refused", "failed") and step["number"] not in said:
            said.add(step["number"])
            session.say(f"{_MARKS[step['state']]:8} {_title(step)}: {step['words']}")
        elif step["state"] == "running":
            people = step["waits_since"] is not None and -step["number"] not in said
            if people:
                said.add(-step["number"])
                session.say(f"{_MARKS['running']:8} {_title(step)}: {step['words']}")
            status.update(f"{_title(step)}: {step['words']}".replace("[", "\\["))


def _end(session: Session, told: dict[str, Any]) -> int:
    name = f"{told['model']}:{told['label']}"
    if told["state"] == "running":
        session.answer(told, lambda: click.echo(f"{name} waits for people; penstock pipeline show {name} --follow"))
        return 0
    if told["state"] == "done":
        session.answer(told, lambda: click.echo(f"{name} is live in {told['plan']['environments'][-1]}."))
        return 0
    session.answer(told, lambda: _figures(session, told))
    click.echo(f"Error: {name} was {told['state']}. {told['words']}", err=True)
    return 1


def _figures(session: Session, told: dict[str, Any]) -> None:
    """The gates of the step that stopped it, those that are passed too."""
    outcomes = _current(told)["outcomes"]
    if outcomes:
        table(
            session.console,
            ("GATE", "STATE", "WHY", "WHAT WOULD SUPPLY IT"),
            [(one["gate"], one["state"], one["words"], one["command"] or "-") for one in outcomes],
            empty="",
        )


def _show(session: Session, told: dict[str, Any]) -> None:
    click.echo(f"{told['id']}: {told['model']}:{told['label']} ({told['digest']}), {told['state']}")
    table(
        session.console,
        ("STEP", "STATE", "SINCE", "TELLS"),
        [(_title(one), one["state"], when(one["started_at"]), one["words"]) for one in told["steps"]],
        empty="",
    )
    if told["state"] not in ("running", "done"):
        _figures(session, told)


def _current(told: dict[str, Any]) -> dict[str, Any]:
    """The step that is under way, or the last that was."""
    begun = [one for one in told["steps"] if one["started_at"] is not None]
    found: dict[str, Any] = begun[-1]
    return found


def _title(step: dict[str, Any]) -> str:
    return f"{step['kind']} {step['environment']}".strip()
