"""`penstock models diff|lineage`."""

from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.session import Session, with_session
from penstock.cli.show import pairs, shown, table
from penstock.core.references import parse_reference

_PATIENCE_S = 3600.0  # large models take as long as their weights take to be read
_MOST = 40


@click.command("diff")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option("--all", "every", is_flag=True, help="Every tensor and line, not the first forty.")
@with_session
def diff(session: Session, before: str, after: str, every: bool) -> None:
    """What differs from version A to version B, and which part of a semantic version should grow."""
    references = (str(parse_reference(before)), str(parse_reference(after)))
    session.patience(_PATIENCE_S)
    found = session.api.get("/diff", a=references[0], b=references[1])
    session.answer(found, lambda: _show(session, found, None if every else _MOST))


def _show(session: Session, found: dict[str, Any], most: int | None) -> None:
    console, d, suggestion = session.console, found["difference"], found["suggestion"]
    for side in ("a", "b"):
        one = found[side]
        console.print(f"[bold]{side}[/]   {one['model']}:{one['label']}  {one['digest']}")
    console.print()
    console.print(f"[bold]bump[/]   {suggestion['bump'] or 'none'}")
    for reason in suggestion["reasons"]:
        console.print(f"       {reason}", markup=False)
    _tensors(session, d["tensors"], most)
    _tokenizer(session, d["tokenizer"])
    for title, changes in (
        ("CONFIG", d["config"] | d["generation"]),
        ("PROCESSING", d["processing"]),
        ("METADATA", d["metadata"]),
    ):
        if changes:
            console.print()
            table(session.console, (title, "A", "B"), [(p, *map(shown, v)) for p, v in changes.items()], empty="")
    if d["metrics"]:
        console.print()
        table(
            console,
            ("METRIC", "A", "B", "", "CLEAR"),
            [(m["name"], m["before"], m["after"], _better(m["better"]), m["clear"]) for m in d["metrics"]],
            empty="",
        )
    for title, lines in (("template", d["template"]), ("card", d["card"])):
        if lines:
            console.print()
            console.print(f"[bold]{title}[/]")
            for line in lines[:most]:
                console.print(f"  {line}", markup=False)
    _files(session, d)


def _better(better: bool | None) -> str:
    return "" if better is None else "better" if better else "worse"


def _tensors(session: Session, tensors: dict[str, Any], most: int | None) -> None:
    changed = tensors["changed"]
    console = session.console
    console.print()
    whole = "" if tensors["relative"] is None else f"; of those, |B - A| / |A| is {tensors['relative']:.3g}"
    console.print(f"[bold]weights[/]   {tensors['same']} tensors are the same, {len(changed)} are not{whole}")
    if changed:
        table(
            console,
            ("TENSOR", "CHANGE", "A", "B", "RELATIVE", "COSINE"),
            [
                (
                    t["name"],
                    t["change"],
                    _kind(t["dtype"], t["shape"]),
                    _kind(t["new_dtype"], t["new_shape"]),
                    t["relative"],
                    None if t["cosine"] is None else f"{t['cosine']:.6f}",
                )
                for t in changed[:most]
            ],
            empty="",
        )
        if most is not None and len(changed) > most:
            console.print(f"... and {len(changed) - most} more (--all)")


def _kind(dtype: str, shape: list[int]) -> str:
    return f"{dtype} {'x'.join(map(str, shape))}".strip() or "-"


def _tokenizer(session: Session, t: dict[str, Any]) -> None:
    rows = [
        (name.replace("_", " "), f"{t[name]}" + (f": {shown(t['examples'][name])}" if name in t["examples"] else ""))
        for name in ("added", "removed", "moved", "merges_added", "merges_removed")
        if t[name]
    ]
    if t["merges_reordered"]:
        rows.append(("merges", "in another order"))
    if t["settings"]:
        rows.append(("settings", shown(t["settings"])))
    if rows:
        session.console.print()
        session.console.print("[bold]tokenizer[/]")
        pairs(session.console, [(f"  {name}", value) for name, value in rows])


def _files(session: Session, d: dict[str, Any]) -> None:
    rows = [
        (sign, path)
        for sign, name in (("+", "files_added"), ("-", "files_removed"), ("~", "files_changed"))
        for path in d[name]
    ]
    if rows:
        session.console.print()
        table(session.console, ("", "FILE"), rows, empty="")


@click.command("lineage")
@click.argument("reference", metavar="REF")
@with_session
def lineage(session: Session, reference: str) -> None:
    """What a version was made of and measured on, and what was made of it."""
    wanted = parse_reference(reference)
    part = wanted.label or wanted.digest or f"@{wanted.alias}"
    found = session.api.get(at("models", wanted.name, "versions", part, "lineage"))
    session.answer(
        found,
        lambda: table(
            session.console,
            ("VERSION", "IS", "WHAT", "DIGEST"),
            [
                (e["source"], e["relation"].replace("_", " "), e["target"], e["target_digest"] or "-")
                for e in found["edges"]
            ],
            empty=f"Nobody has told what {reference} was made of ('lineage' and 'training.data' of its metadata).",
        ),
    )
