"""`penstock explain REQUEST_ID`: what became of one request, and why."""

from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.datasets import custody
from penstock.cli.session import Session, with_session
from penstock.cli.show import pairs, table, when
from penstock.core.errors import NotFound, PenstockError, Unauthenticated, Unavailable


@click.command()
@click.argument("request_id")
@click.option("--content", is_flag=True, help="Also what was asked and answered, if it was kept; this is recorded.")
@with_session
def explain(session: Session, request_id: str, content: bool) -> None:
    """Who asked, which version and weights answered, when each phase ended, what was found and said of it.

    The id is in the reply's `x-penstock-request-id`.
    """
    told = _found(session, request_id)
    document = told | {"provenance": _behind(session, told["request"])}
    if content:
        document["said"] = session.api.get(f"{at('requests', request_id)}/content")
    session.answer(document, lambda: _show(session, document))


def _found(session: Session, request_id: str) -> dict[str, Any]:
    """As control tells it, else as the journal here does.

    Raises:
        PenstockError: what control answered, if it is not in the journal either.
    """
    try:
        found: dict[str, Any] = session.api.get(at("requests", request_id))
    except (NotFound, Unauthenticated, Unavailable) as error:
        from penstock.cli.explain_journal import from_journal

        here = from_journal(session, request_id)
        if here is None:
            raise
        return here | {"control": error.message}
    return found


def _speed(request: dict[str, Any]) -> str | None:
    phases, tokens = request["phases"], request["usage"]["completion"]
    took = phases["last_token"] - (phases["dispatched"] or phases["admitted"])
    return f"{tokens / took * 1e9:.1f} a second" if took > 0 and tokens else None


def _behind(session: Session, request: dict[str, Any]) -> dict[str, Any] | None:
    """What stands behind the answer; None if no version of the registry gave it, or the caller may not see that."""
    name, _, label = request["version"].partition(":")
    try:
        found: dict[str, Any] = session.api.get(f"{at('requests', request['id'])}/provenance")
    except NotFound:  # the journal here has the request, and control has not taken it in yet
        if not label:
            return None
        where = at("models", name, "versions", request["digest"] or label)
        try:
            found = session.api.get(f"{where}/provenance", at=request["at"], pool=request["pool"] or None)
        except PenstockError:
            return None
    except PenstockError:
        return None
    return found


def _cascade(request: dict[str, Any]) -> str | None:
    if not request["escalated"]:
        return None
    tried = request["tried"]
    return (
        f"the first model did not convince ({tried['prompt']} prompt, {tried['completion']} completion of the tokens)"
    )


def _beside(request: dict[str, Any]) -> str | None:
    pair = request.get("pair")
    if not pair:
        return None
    if pair["of"]:
        alike = "" if pair["similarity"] < 0 else f"; their answers are {pair['similarity'] / 1e6:.0%} alike"
        return f"a copy that no user saw, of {pair['of']} (arm {pair['arm']}){alike}"
    shown = f"shown in the order {', '.join(pair['shown'])}" if pair["shown"] else "not shown"
    return f"arm {pair['arm']} answered too: {pair['outcome']}, {shown}"


def _quality(request: dict[str, Any]) -> str | None:
    seen = request.get("quality")
    if not seen:
        return None
    said = [] if seen["perplexity"] is None else [f"perplexity {seen['perplexity']:.3f} over {seen['scored']} tokens"]
    said += [] if seen["repetition"] is None else [f"{seen['repetition']:.1%} repeated"]
    return ", ".join([*said, "a refusal" if seen["refused"] else "no refusal"])


def _show(session: Session, told: dict[str, Any]) -> None:
    request, experiment = told["request"], told["experiment"]
    console = session.console
    usage = request["usage"]
    pairs(
        console,
        [
            ("request", request["id"]),
            ("at", when(request["at"])),
            (
                "outcome",
                f"{request['outcome']}, status {request['status']}"
                + (f", {request['error']}" if request["error"] else ""),
            ),
            ("asked for", f"{request['model']} ({request['operation']}{', streamed' if request['stream'] else ''})"),
            ("asked by", f"tenant {request['tenant']}, key {request['key']}"),
            ("user", request["user"] and f"{request['user']} (keyed hash)"),
            (
                "experiment",
                experiment
                and f"{experiment['name']}, arm {experiment['arm']}, epoch {experiment['epoch']}, "
                f"drawn with probability {experiment['propensity']:g}",
            ),
            (
                "answered by",
                f"{request['version'] or 'nobody'} on {request['replica'] or '-'} of pool {request['pool'] or '-'}",
            ),
            ("tokens", f"{usage['prompt']} prompt, {usage['completion']} completion, {usage['cached']} cached"),
            ("tokens' speed", _speed(request)),
            ("finish", request["finish"]),
            ("quality", _quality(request)),
            ("cascade", _cascade(request)),
            ("context", request.get("context")),
            ("beside", _beside(request)),
            ("left out", f"{request['trimmed']} turns of the conversation" if request["trimmed"] else None),
            ("cost", f"{request['cost_nanousd'] / 1e9:.6f} USD"),
            ("cache", request["cache"]),
            ("attempts", request["attempts"]),
            ("hedged", "a second replica was asked too" if request["hedged"] else None),
            ("fallback", "answered by a pool that the route falls back to" if request["fallback"] else None),
            ("resumed", f"{request['resumed']} times, by another replica" if request["resumed"] else None),
            ("trace", request.get("trace_id")),
            ("read from", told.get("source") and f"the journal here; control: {told['control']}"),
            ("worker", f"{request['worker']}, Snapshot generation {request['generation']}"),
            ("findings", [f"{f['rule']} {f['action']} {f['where']} x{f['count']}" for f in request["findings"]]),
        ],
    )
    if request["digest"]:
        console.print(f"[bold]weights[/]      {request['digest']}")
    if told["provenance"] is not None:
        _show_provenance(session, told["provenance"])
    console.print()
    table(
        console,
        ("PHASE", "MILLISECONDS", "ENDED AFTER"),
        [(phase["name"], f"{phase['ms']:.2f}", f"{phase['end_ms']:.2f}") for phase in told["phases"]],
        empty="It reached no phase.",
    )
    _show_engine(session, told)
    for one in told["observations"]:
        said = {k: one[k] for k in ("rating", "success", "value", "name", "text") if one.get(k) not in (None, "")}
        console.print(f"{one['kind']} at {when(one['received'])}: {said} ({one['state']})", markup=False)
    if "said" in told:
        _show_content(session, told["said"])


def _show_engine(session: Session, told: dict[str, Any]) -> None:
    """What an older control does not tell is left out."""
    console = session.console
    if told.get("engine"):
        console.print()
        table(
            console,
            ("IN THE ENGINE", "MILLISECONDS", "ENDED AFTER"),
            [(phase["name"], f"{phase['ms']:.2f}", f"{phase['end_ms']:.2f}") for phase in told["engine"]],
            empty="",
        )
    if told.get("tries"):
        console.print()
        table(
            console,
            ("ASKED IN VAIN", "POOL", "WHY", "MILLISECONDS", "ENDED AFTER"),
            [
                (
                    one["replica"],
                    one["pool"],
                    ": ".join(filter(None, (one["why"], one["error"]))),
                    f"{one['ms']:.2f}",
                    f"{one['end_ms']:.2f}",
                )
                for one in told["tries"]
            ],
            empty="",
        )


def _show_provenance(session: Session, behind: dict[str, Any]) -> None:
    console = session.console
    version, build = behind["version"], behind["build"]
    if version is None:
        return
    console.print(
        f"[bold]registered[/]   {version['model']}:{version['label']} {when(version['created_at'])} by {version['created_by']}, now {version['state']}"
    )
    if build is not None:
        console.print(f"[bold]build[/]        {build['engine']} {build['precision']} {build['digest']}")
    for one in behind["deployments"]:
        copies = f", a copy of revision {one['copies']}" if one["copies"] is not None else ""
        console.print(
            f"[bold]deployed[/]     {one['environment']} revision {one['revision']} ({one['action']}{copies}) by {one['principal']}, "
            f"live {when(one['live_at'])} {one['reason']}".rstrip()
        )
        gates = one["gates"]
        for outcome in gates["outcomes"] if gates else ():
            console.print(f"  gate         {outcome['gate']}: {outcome['state']}. {outcome['words']}", markup=False)
        if gates and gates["overridden_by"]:
            console.print(f"  overridden   by {gates['overridden_by']}: {gates['reason']}", markup=False)
        for approval in one["approvals"]:
            console.print(
                f"  approved     by {approval['principal']} {when(approval['at'])} {approval['reason']}", markup=False
            )
    for edge in behind["lineage"]:
        if edge["kind"] != "dataset":
            console.print(
                f"[bold]lineage[/]      {edge['version']} {edge['relation'].replace('_', ' ')} {edge['target']}"
            )
    for data in behind["data"]:
        uses = ", ".join(f"{one['version']} {one['relation'].replace('_', ' ')} it" for one in data["relations"])
        console.print(f"[bold]data[/]         {data['name']} {data['digest']} ({uses})")
        custody(session, data["custody"])


def _show_content(session: Session, said: dict[str, Any]) -> None:
    console = session.console
    console.print()
    for one in said["texts"]:
        texts = [f"{name}: {one[name]}" for name in ("text", "corrected") if one.get(name)] or [one["why"]]
        for text in texts:
            console.print(f"{one['kind']} {one['id']}, {text}", markup=False)
    if said["state"] != "readable":
        at = f" It was at {when(said['destroyed_at'])}." if "destroyed_at" in said else ""
        console.print(f"content: {said['why']}{at}", markup=False)
        return
    notes = [note for note, holds in (("personal data masked", said["masked"]), ("cut", said["cut"])) if holds]
    console.print("content" + (f" ({', '.join(notes)})" if notes else ""), markup=False)
    for one in said["messages"]:
        console.print(f"{one['role']}: {one['text']}", markup=False)
    for one in said["replies"]:
        console.print(f"answer {one['index']}, {one['field']}: {one['text']}", markup=False)
