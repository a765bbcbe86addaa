"""`penstock experiments list|create|start|status|replay|pause|stop|kill|archive|export|power`."""

import json
from pathlib import Path
from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.documents import file_argument, read_document
from penstock.cli.experiment_tables import show_strategy
from penstock.cli.session import Session, with_session
from penstock.cli.show import pairs, share, table, when
from penstock.core.errors import BadRequest


@click.group()
def experiments() -> None:
    """A/B tests and the like: registered, run, read."""


@experiments.command("list")
@with_session
def list_experiments(session: Session) -> None:
    """All experiments."""
    found = session.api.get("/experiments")
    session.answer(
        found,
        lambda: table(
            session.console,
            ("NAME", "STRATEGY", "ROUTE", "STATE", "SHARES", "VERDICT"),
            [
                (e["name"], e["strategy"], e["route"], e["state"], _shares(e["shares"]), e["verdict"]["state"])
                for e in found["experiments"]
            ],
            empty="There is no experiment; 'penstock experiments create -f FILE' registers one.",
        ),
    )


def _shares(shares: dict[str, float]) -> str:
    return ", ".join(f"{arm} {share(part)}" for arm, part in shares.items())


@experiments.command("create")
@click.option("-f", "--file", "path", required=True, type=file_argument, help="The Experiment document; - is stdin.")
@with_session
def create(session: Session, path: str) -> None:
    """Register the experiment in FILE as a draft; the same document again changes nothing."""
    document = read_document(path)
    if document.get("kind", "Experiment") != "Experiment":
        raise BadRequest(f"{path} is a {document['kind']}, not an Experiment.", param="kind")
    if not isinstance(document.get("name"), str) or not isinstance(document.get("spec"), dict):
        raise BadRequest(f"{path} needs a name and a spec.", param="spec")
    told = session.api.send("POST", "/experiments", {"name": document["name"], "spec": document["spec"]})

    def people() -> None:
        planned = told["planned"]
        click.echo(f"Experiment {told['name']} is registered as a {told['state']}.")
        kinds = (("one look", planned["fixed"]), ("watched", planned["always_valid"]))
        click.echo(f"Planned units per arm: {planned['units']} ({planned['inference'].replace('_', ' ')}).")
        click.echo("For comparison: " + ", ".join(f"{units} ({kind})" for kind, units in kinds) + ".")
        click.echo(f"'penstock experiments start {told['name']}' starts it.")

    session.answer(told, people)


def _act(session: Session, name: str, action: str, done: str, reason: str = "") -> None:
    told = session.api.send("POST", f"{at('experiments', name)}/{action}", {"reason": reason})
    session.answer(told, lambda: click.echo(f"Experiment {name} is {done}; its state is {told['state']}."))


@experiments.command("start")
@click.argument("name")
@with_session
def start(session: Session, name: str) -> None:
    """Start an experiment, or go on after a pause."""
    _act(session, name, "start", "started")


@experiments.command("pause")
@click.argument("name")
@click.option("--reason", default="", help="Why, for the record.")
@with_session
def pause(session: Session, name: str, reason: str) -> None:
    """Send all traffic to the control until the experiment is started again."""
    _act(session, name, "pause", "paused", reason)


@experiments.command("stop")
@click.argument("name")
@click.option("--reason", default="", help="Why, for the record.")
@with_session
def stop(session: Session, name: str, reason: str) -> None:
    """End an experiment without waiting for a verdict."""
    _act(session, name, "stop", "stopped", reason)


@experiments.command("kill")
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="All that run or are paused, canaries too, in one change.")
@click.option("--reason", default="", help="Why, for the record.")
@with_session
def kill(session: Session, name: str | None, everything: bool, reason: str) -> None:
    """End an experiment now, with all of its traffic on the control until it is archived."""
    if (name is None) == (not everything):
        raise click.UsageError("Name an experiment, or say --all.")
    if name is not None:
        _act(session, name, "kill", "killed", reason)
        return
    told = session.api.send("POST", "/experiments/kill", {"reason": reason})
    session.answer(
        told, lambda: click.echo(f"Killed: {', '.join(told['killed'])}." if told["killed"] else "Nothing runs.")
    )


@experiments.command("archive")
@click.argument("name")
@with_session
def archive(session: Session, name: str) -> None:
    """Put an ended experiment away: its route serves its own targets again."""
    _act(session, name, "archive", "archived")


@experiments.command("export")
@click.argument("name")
@click.option("--format", "kind", type=click.Choice(["json", "csv"]), default="json", show_default=True, help="How.")
@click.option(
    "--table",
    type=click.Choice(["comparisons", "points", "arms", "guardrails", "epochs"]),
    default="comparisons",
    show_default=True,
    help="Of CSV: which table.",
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, writable=True), help="The file; none: stdout.")
@with_session
def export(session: Session, name: str, kind: str, table: str, output: str | None) -> None:
    """Take an experiment away: all that was registered, counted and decided."""
    if kind == "csv":
        text = session.api.text(f"{at('experiments', name)}/export", format="csv", table=table)
    else:
        text = json.dumps(session.api.get(f"{at('experiments', name)}/export"), indent=2) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    Path(output).write_text(text, encoding="utf-8")
    session.answer({"file": output, "bytes": len(text.encode())}, lambda: click.echo(f"Written to {output}."))


@experiments.command("replay")
@click.argument("name")
@click.option("--verdicts", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many on the way.")
@with_session
def replay(session: Session, name: str, verdicts: int) -> None:
    """Fold an experiment's stored records again, in the order in which they came; exit status 1 if anything comes out otherwise."""
    told = session.api.get(f"{at('experiments', name)}/replay", verdicts=verdicts)

    def people() -> None:
        table(
            session.console,
            ("RECORDS", "SEQUENCE", "VERDICT", "IN WORDS"),
            [
                (one["records"], one["sequence"], one["verdict"]["state"], next(iter(one["verdict"]["reasons"]), ""))
                for one in told["verdicts"]
            ],
            empty="There are no records yet.",
        )
        for difference in told["differences"]:
            click.echo(difference)
        kept = {True: "equal", False: "unequal", None: "not made yet"}[told["same_verdict"]]
        counts = "equal" if told["same_counts"] else "unequal"
        click.echo(f"{told['records']} records replayed. Counts: {counts}. Verdict: {kept}.")

    session.answer(told, people)
    if not told["equal"]:
        raise click.exceptions.Exit(1)


@experiments.command("status")
@click.argument("name")
@with_session
def status(session: Session, name: str) -> None:
    """Where an experiment stands: arms, estimates with their intervals, verdict in words."""
    told = session.api.get(at("experiments", name))
    session.answer(told, lambda: _show(session, told))


def _show(session: Session, told: dict[str, Any]) -> None:
    verdict = told["verdict"]
    pairs(
        session.console,
        [
            ("experiment", f"{told['name']} ({told['strategy']} on {told['route']}, by {told['unit']})"),
            ("hypothesis", told["hypothesis"]),
            ("state", told["state"]),
            ("started", when(told["started_at"])),
            ("shares", _shares(told["shares"])),
            ("serving", told.get("serving")),
            ("verdict", verdict["state"]),
        ],
    )
    for reason in verdict["reasons"]:
        session.console.print(f"  {reason}", markup=False)
    session.console.print()
    if verdict.get("arms"):
        table(
            session.console,
            ("ARM", "SHARE", "UNITS", "REQUESTS"),
            [(a["arm"], share(a["share"]), a["units"], a["requests"]) for a in verdict["arms"]],
            empty="",
        )
        session.console.print()
    if verdict.get("comparisons"):
        table(
            session.console,
            ("METRIC", "ARM", "VALUE", "CONTROL", "DIFFERENCE", "INTERVAL", "N", "STATE"),
            [
                (
                    c["metric"] + (" *" if c.get("primary") else "") + (" +" if c.get("finding") else ""),
                    c["arm"],
                    c["value"],
                    c["control_value"],
                    c["estimate"],
                    "-" if c["lower"] is None else f"{c['lower']:+.4g} to {c['upper']:+.4g}",
                    f"{c['n']} / {c['control_n']}",
                    c["state"],
                )
                for c in verdict["comparisons"]
            ],
            empty="",
        )
        looked = " at planned looks" if verdict.get("looks") else ""
        session.console.print(
            f"* primary metric{looked}; + finding over all metrics; intervals hold however often they are looked at",
            style="dim",
        )
    show_strategy(session, verdict)
    _show_looks(session, verdict)
    _show_progress(session, verdict)
    for guardrail in verdict.get("guardrails", []):
        if guardrail["tripped"]:
            session.console.print(f"[red]guardrail tripped[/]: {guardrail['metric']} in {guardrail['arm']}")


def _show_looks(session: Session, verdict: dict[str, Any]) -> None:
    if verdict.get("looks"):
        session.console.print()
        table(
            session.console,
            ("LOOK", "AT", "ARM", "BOUNDARY", "STATISTIC", ""),
            [
                (
                    one["number"],
                    share(one["fraction"]),
                    one["arm"],
                    f"{one['boundary']:.3f}",
                    "-" if one["statistic"] is None else f"{one['statistic']:+.3f}",
                    "crossed" if one["crossed"] else "taken" if one["taken"] else "",
                )
                for one in verdict["looks"]
            ],
            empty="",
        )


def _show_progress(session: Session, verdict: dict[str, Any]) -> None:
    """What can still be seen, and what is believed, if somebody asked."""
    progress = [one for one in verdict.get("progress", []) if one["needed"] is not None]
    if progress:
        session.console.print()
        table(
            session.console,
            ("ARM", "UNITS", "PLANNED", "NEEDED", "FINDS", "POWER"),
            [
                (
                    one["arm"],
                    one["units"],
                    one["planned"],
                    one["needed"],
                    f"{one['detectable']:.3g}",
                    share(one["power"]),
                )
                for one in progress
            ],
            empty="",
        )
    believed = [one for one in verdict.get("comparisons", []) if one.get("belief") is not None]
    if believed:
        session.console.print()
        table(
            session.console,
            ("METRIC", "ARM", "CHANCE BETTER", "BELIEVED", "EXPECTED LOSS"),
            [
                (
                    one["metric"],
                    one["arm"],
                    share(one["belief"]["chance_better"]),
                    f"{one['belief']['lower']:+.4g} to {one['belief']['upper']:+.4g}",
                    f"{one['belief']['expected_loss']:.3g}",
                )
                for one in believed
            ],
            empty="",
        )


@experiments.command("power")
@click.option("--metric", default="success", show_default=True, help="What is measured.")
@click.option(
    "--minimum-effect", type=float, required=True, help="Smallest difference worth finding, in the metric's unit."
)
@click.option("--baseline", type=float, help="Value now: needed for a proportion.")
@click.option("--deviation", type=float, help="Standard deviation: needed for a mean.")
@click.option("--alpha", type=float, default=0.05, show_default=True, help="Chance of finding what is not there.")
@click.option("--power", "wanted", type=float, default=0.8, show_default=True, help="Chance of finding what is there.")
@click.option("--arms", type=click.IntRange(2), default=2, show_default=True, help="Arms, the control among them.")
@click.option(
    "--looks", type=click.IntRange(1, 50), default=5, show_default=True, help="Looks of the group-sequential plan."
)
@with_session
def power(
    session: Session,
    metric: str,
    minimum_effect: float,
    baseline: float | None,
    deviation: float | None,
    alpha: float,
    wanted: float,
    arms: int,
    looks: int,
) -> None:
    """How many units an experiment needs: for one look at the end, for planned looks, and when it is watched all the time."""
    told = session.api.send(
        "POST",
        "/experiments/power",
        {
            "metric": metric,
            "minimum_effect": minimum_effect,
            "baseline": baseline,
            "deviation": deviation,
            "alpha": alpha,
            "power": wanted,
            "arms": arms,
            "looks": looks,
        },
    )
    session.answer(
        told,
        lambda: table(
            session.console,
            ("PLAN", "UNITS PER ARM", "UNITS"),
            [(plan.replace("_", " "), count, told["units"][plan]) for plan, count in told["units_per_arm"].items()],
            empty="",
        ),
    )
