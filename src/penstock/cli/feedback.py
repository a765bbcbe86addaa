"""`penstock feedback export`: what people said of answers, as lines to train on."""

import json
from pathlib import Path
from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.datasets import digest_of
from penstock.cli.session import Session, with_session
from penstock.cli.show import pairs
from penstock.core.errors import Conflict, Damaged

_FILES = {"supervised": "supervised.jsonl", "preference": "preferences.jsonl"}
_RECORD = "dataset.yaml"


@click.group()
def feedback() -> None:
    """Ratings, corrections and preferences."""


@feedback.command("export")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--from", "start", type=float, help="Unix seconds: said from then on.")
@click.option("--to", "end", type=float, help="Unix seconds: said before.")
@click.option("--tenant", metavar="NAME", help="Of this tenant alone.")
@click.option("--route", metavar="NAME", help="Of this route alone.")
@click.option("--version", "version", metavar="NAME[:LABEL]", help="Of answers of this version, or of all of a model.")
@click.option("--good-at", type=float, default=1.0, show_default=True, help="Ratings from here on are good.")
@click.option("--bad-at", type=float, default=-1.0, show_default=True, help="Ratings up to here are bad.")
@click.option("--joined/--not-joined", default=True, help="Also pair good and bad answers to the very same question.")
@click.option("--mask", multiple=True, metavar="KIND", help="What is masked, again for more [default: as policies do].")
@click.option("--unmasked", is_flag=True, help="Mask nothing; needs --reason, and is recorded.")
@click.option("--without-consent", is_flag=True, help="Also what nobody consented to; needs --reason, and is recorded.")
@click.option("--reason", default="", help="For the audit trail.")
@click.option("--register", "name", metavar="NAME", help="Register what was written as the data set NAME.")
@with_session
def export(
    session: Session, directory: Path, name: str | None, mask: tuple[str, ...], unmasked: bool, **wish: Any
) -> None:
    """Write supervised.jsonl and preferences.jsonl below DIRECTORY, with consent, masking and lineage, and dataset.yaml, their record.

    Only what people consented to, and whose content was kept, is written. Each line names the request and the version's digest.
    """
    body = {key: value for key, value in wish.items() if value is not None}
    body = {{"start": "from", "end": "to"}.get(key, key): value for key, value in body.items()}
    if mask or unmasked:
        body["mask"] = list(mask)
    directory.mkdir(parents=True, exist_ok=True)
    taken = [one for one in (*_FILES.values(), _RECORD) if (directory / one).exists()]
    if taken:
        raise Conflict(f"{directory / taken[0]} is there already; name an empty folder.", param="DIRECTORY")
    summary = _write(session, directory, body)
    spec = _record(directory, summary, body)
    if name is not None:
        document = {"kind": "DataSet", "name": name, "spec": spec}
        session.api.send("PUT", at("datasets", name), document)
    lines = summary.pop("digest")
    told = {**summary, "lines_digest": lines, "directory": str(directory), "dataset": name, "digest": spec["digest"]}

    def people() -> None:
        pairs(
            session.console,
            [
                ("supervised examples", summary["supervised"]),
                ("preference pairs", summary["preferences"]),
                ("left out", summary["left_out"]),
                ("masked", summary["masked"] or "nothing"),
                ("data set", name),
            ],
        )
        session.console.print(f"[bold]digest[/]   {spec['digest']}")

    session.answer(told, people)


def _write(session: Session, directory: Path, body: dict[str, Any]) -> dict[str, Any]:
    """Writes the lines; gives the last one, which counts them.

    Raises:
        Damaged: if the answer ends before that one.
    """
    summary: dict[str, Any] | None = None
    files = {kind: (directory / name).open("x", encoding="utf-8") for kind, name in _FILES.items()}
    try:
        for line in session.api.lines("/feedback/export", body):
            made = json.loads(line)
            kind = made.pop("kind")
            if kind == "summary":
                summary = made
            else:
                files[kind].write(json.dumps(made, ensure_ascii=False) + "\n")
    finally:
        for file in files.values():
            file.close()
    if summary is None:
        raise Damaged(f"The export broke off; what is in {directory} is not all of it.")
    return summary


def _record(directory: Path, summary: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """Writes the record of the two files as a DataSet document, to be completed by people; gives its spec."""
    import yaml

    digest, size = digest_of(directory)
    consented = not body.get("without_consent")
    chosen = ", ".join(f"{key} {body[key]}" for key in ("tenant", "route", "version", "from", "to") if key in body)
    spec = {
        "digest": digest,
        "description": f"{summary['supervised']} supervised examples and {summary['preferences']} preference pairs of feedback.",
        "source": f"Feedback of users on answers ({chosen or 'all'}), exported by Penstock; each line names its request and version.",
        "consent": {
            "basis": "explicit" if consented else "none_given",
            "note": "Each line was consented to."
            if consented
            else f"Not all of it was consented to: {body.get('reason', '')}",
        },
        "transformations": [
            {"what": f"Masked: {', '.join(summary['masked']) or 'nothing'}.", "code": "penstock feedback export"}
        ],
        "rows": summary["supervised"] + summary["preferences"],
        "size": size,
    }
    document = {"kind": "DataSet", "name": "feedback", "spec": spec}
    (directory / _RECORD).write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return spec
