"""`penstock models build|builds`: what an engine loads, made of a version's weights, and what each precision costs and gains."""

import time
from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.evaluations import watch
from penstock.cli.session import Session, with_session
from penstock.cli.show import share, size, table, when
from penstock.core.errors import BadRequest, Conflict
from penstock.core.references import parse_reference

_PRECISIONS = ("int8", "int4", "fp16", "fp32")
_OVER = ("done", "failed", "cancelled")
_LOOK_S = 0.5


@click.command("build")
@click.argument("reference", metavar="REF")
@click.option(
    "--engine", type=click.Choice(["openvino"]), default="openvino", show_default=True, help="That is to load it."
)
@click.option("--precision", type=click.Choice(_PRECISIONS), help="Of matrices [default: int8].")
@click.option("--suggest", is_flag=True, help="Build and measure every precision, and show what each costs and gains.")
@click.option("--measure/--no-measure", default=True, help="Measure speed and quality of the build [default: yes].")
@click.option(
    "--usd-per-hour",
    type=click.FloatRange(0.0),
    help="With --suggest: what an hour of the machine costs [default: the setting].",
)
@click.option("--wait/--no-wait", default=True, help="Watch it until it is done [default: yes].")
@with_session
def build(
    session: Session,
    reference: str,
    engine: str,
    precision: str | None,
    suggest: bool,
    measure: bool,
    usd_per_hour: float | None,
    wait: bool,
) -> None:
    """Turn a version's weights (safetensors) into what an engine loads, in a process of its own, away from users' traffic.

    A build that is there is told as it is. Its quality is compared with the widest build of the version, on the suites that gates ask of the model or that the version was asked before.
    """
    parse_reference(reference)
    if usd_per_hour is not None and not suggest:
        raise BadRequest("--usd-per-hour goes with --suggest.", param="--usd-per-hour")
    if suggest and precision is not None:
        raise BadRequest("--suggest looks at every precision; leave --precision out.", param="--precision")
    found = session.api.get("/resolve", ref=reference)
    version = at("models", found["model"], "versions", found["digest"])
    if suggest:
        _suggest(session, version, usd_per_hour, wait=wait)
        return
    body = {"engine": engine, "precision": precision or "int8", "measure": measure}
    job = session.api.send("POST", f"{version}/builds", body)
    if wait:
        job = _watch(session, job["id"])
        if measure:
            _measured(session, found)
    rows = [one for one in session.api.get(f"{version}/tradeoff")["options"] if one["build"] == job["build"] != ""]
    document = job | {"option": rows[0] if rows else None}
    session.answer(document, lambda: _show_job(session, job, rows))


@click.command("builds")
@click.argument("reference", metavar="REF", required=False)
@click.option("--cancel", metavar="JOB", help="End this job, which waits or runs.")
@with_session
def list_builds(session: Session, reference: str | None, cancel: str | None) -> None:
    """The jobs that make or made builds, newest first; of the version REF also its builds, as far as they are measured."""
    if cancel is not None:
        told = session.api.send("POST", f"{at('builds', cancel)}/cancel")
        session.answer(told, lambda: click.echo(f"{cancel} is cancelled."))
        return
    if reference is None:
        jobs = session.api.get("/builds")
        session.answer({"jobs": jobs}, lambda: _show_jobs(session, jobs))
        return
    parse_reference(reference)
    found = session.api.get("/resolve", ref=reference)
    version = at("models", found["model"], "versions", found["digest"])
    jobs = session.api.get("/builds", model=found["model"], label=found["label"])
    told = session.api.get(f"{version}/tradeoff")
    builds = session.api.get(f"{version}/builds")
    document = {"jobs": jobs, "builds": builds, "options": told["options"]}

    def people() -> None:
        _show_options(session, [one for one in told["options"] if one["build"]], told["usd_per_hour"])
        session.console.print()
        _show_jobs(session, jobs)

    session.answer(document, people)


def _watch(session: Session, identity: str) -> dict[str, Any]:
    """The job, once it is over; its steps are shown as they begin.

    Raises:
        Conflict: if it failed or was cancelled.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    shown = 0
    while True:
        job: dict[str, Any] = session.api.get(at("builds", identity))
        for step in job["steps"][shown:] if not session.as_json else ():
            console.print(f"[dim]{time.strftime('%H:%M:%S', time.localtime(step['at']))}[/] {step['step']}")
        shown = max(shown, len(job["steps"]))
        if job["state"] in _OVER:
            break
        time.sleep(_LOOK_S)
    if job["state"] != "done":
        raise Conflict(f"The build {identity} is {job['state']}: {job['detail']}", code="build_failed")
    return job


def _measured(session: Session, found: dict[str, Any]) -> None:
    """Watch the evaluations of the version's builds that are under way."""
    rows = session.api.get("/evaluations", model=found["model"], label=found["label"], limit=1000)
    waiting = [one["id"] for one in rows if one["state"] not in _OVER]
    if waiting:
        watch(session, waiting)


def _suggest(session: Session, version: str, usd_per_hour: float | None, *, wait: bool) -> None:
    """Builds what is missing once, and measures until nothing is left to measure; what failed stands in the table."""
    told = session.api.send("POST", f"{version}/tradeoff", usd_per_hour=usd_per_hour)
    if wait:
        failed = [why for identity in told["asked"]["builds"] if (why := _failure(session, identity))]
        while told["asked"]["builds"] or told["asked"]["evaluations"]:
            again = session.api.send("POST", f"{version}/tradeoff", usd_per_hour=usd_per_hour, build=False)
            if not again["asked"]["evaluations"]:
                told = again
                break
            watch(session, again["asked"]["evaluations"])
            told = again
        for why in failed:
            click.echo(why, err=True)
    session.answer(told, lambda: _show_options(session, told["options"], told["usd_per_hour"]))


def _failure(session: Session, identity: str) -> str:
    """Watches a job; why it failed, "" if it did not."""
    try:
        _watch(session, identity)
    except Conflict as error:
        return error.message
    return ""


def _show_job(session: Session, job: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    name = f"{job['model']}:{job['label']}"
    if job["state"] != "done":
        click.echo(
            f"The build of {name} in {job['precision']} is {job['state']}; penstock models builds {name} tells how it goes."
        )
        return
    took = (job["finished_at"] or 0.0) - (job["started_at"] or 0.0)
    click.echo(f"{name} has a build in {job['precision']}: {job['build']}, made in {took:.1f} s by {job['converter']}.")
    if rows:
        _show_options(session, rows, None)


def _show_jobs(session: Session, jobs: list[dict[str, Any]]) -> None:
    table(
        session.console,
        ("JOB", "VERSION", "PRECISION", "STATE", "SINCE", "BY", "TELLS"),
        [
            (
                one["id"],
                f"{one['model']}:{one['label']}",
                one["precision"],
                one["state"],
                when(one["created_at"]),
                one["requested_by"],
                one["detail"]
                or (one["steps"][-1]["step"] if one["steps"] and one["state"] != "done" else one["converter"]),
            )
            for one in jobs
        ],
        empty="Nothing was built here.",
    )


def _show_options(session: Session, options: list[dict[str, Any]], usd_per_hour: float | None) -> None:
    suites = list(dict.fromkeys((one["suite"], one["measure"]) for option in options for one in option["quality"]))
    table(
        session.console,
        (
            "VERSION",
            "PRECISION",
            "SIZE",
            "TOKENS/S",
            "S/1000 ANSWERS",
            "USD/1000",
            *(f"{s} {m}".upper() for s, m in suites),
            "LACKS",
        ),
        [
            (
                option["version"] + (" (distilled)" if option["relation"] == "distilled_from" else ""),
                option["precision"] + (" *" if option["baseline"] else ""),
                size(option["size"]),
                _rate(option["speed"]),
                f"{1000 * option['speed']['seconds_per_answer']:.4g}" if option["speed"] else "-",
                f"{option['usd_per_1000_answers']:.4g}" if option["usd_per_1000_answers"] is not None else "-",
                *(_quality(option, suite, measure) for suite, measure in suites),
                "; ".join(option["waits"]) or "-",
            )
            for option in options
        ],
        empty="There is no build.",
    )
    if any(option["baseline"] for option in options):
        click.echo("* what the others are compared with, on the same items; 95 % intervals.")
    if usd_per_hour is None and any(option["speed"] for option in options):
        click.echo(
            "What an hour of the machine costs is not known: --usd-per-hour, or the setting control.machine_usd_per_hour, tells it."
        )


def _rate(speed: dict[str, Any] | None) -> str:
    if speed is None:
        return "-"
    spread = f" ({speed['low']:.0f} to {speed['high']:.0f})" if speed["low"] is not None else ""
    return f"{speed['tokens_per_second']:.0f}{spread}"


def _quality(option: dict[str, Any], suite: str, measure: str) -> str:
    one = next((one for one in option["quality"] if (one["suite"], one["measure"]) == (suite, measure)), None)
    if one is None:
        return "-"
    text = (
        f"{share(one['value'])} ({share(one['low'])} to {share(one['high'])})"
        if measure == "right"
        else f"{one['value']:.4g}"
    )
    if one["difference"] is None or option["baseline"]:
        return text
    low, high = one["difference_low"], one["difference_high"]
    spread = f" ({100 * low:+.1f} to {100 * high:+.1f})" if low is not None and high is not None else ""
    return f"{text}, {100 * one['difference']:+.1f}{spread} {'points' if measure == 'right' else '%'}"
