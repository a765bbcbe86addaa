"""`penstock explain REQUEST_ID`: what became of one request, and why."""

from typing import Any

import click

from penstock.cli.client import at
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
    version, revisions = _behind(session, told["request"])
    document = told | {"version": version, "revisions": revisions}
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


def _behind(session: Session, request: dict[str, Any]) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The version that answered, and the revisions that brought it there before the request."""
    name, _, label = request["version"].partition(":")
    if not label:
        return None, []
    try:
        version = session.api.get(at("models", name, "versions", request["digest"] or label))
        history = session.api.get(at("models", name, "history"))
    except NotFound:
        return None, []
    except PenstockError:
        return None, []  # a caller who may see the request but not the registry
    shown = {key: version[key] for key in ("model", "label", "digest", "state", "created_at", "created_by", "metadata")}
    before = [
        one
        for one in history
        if one["digest"] == request["digest"] and one["live_at"] is not None and one["live_at"] <= request["at"]
    ]
    return shown, before


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
    request, version, experiment = told["request"], told["version"], told["experiment"]
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
            ("trace", request["trace"].split("-")[1] if request["trace"].count("-") > 2 else None),
            ("read from", told.get("source") and f"the journal here; control: {told['control']}"),
            ("worker", f"{request['worker']}, Snapshot generation {request['generation']}"),
            ("findings", [f"{f['rule']} {f['action']} {f['where']} x{f['count']}" for f in request["findings"]]),
        ],
    )
    if request["digest"]:
        console.print(f"[bold]weights[/]      {request['digest']}")
    if version is not None:
        console.print(
            f"[bold]registered[/]   {when(version['created_at'])} by {version['created_by']}, now {version['state']}"
        )
    for one in told["revisions"][:3]:
        console.print(
            f"[bold]deployed[/]     {one['environment']} revision {one['number']} ({one['action']}) by {one['principal']}, "
            f"live {when(one['live_at'])} {one['reason']}".rstrip()
        )
    console.print()
    table(
        console,
        ("PHASE", "MILLISECONDS", "ENDED AFTER"),
        [(phase["name"], f"{phase['ms']:.2f}", f"{phase['end_ms']:.2f}") for phase in told["phases"]],
        empty="It reached no phase.",
    )
    for one in told["observations"]:
        said = {k: one[k] for k in ("rating", "success", "value", "name", "text") if one.get(k) not in (None, "")}
        console.print(f"{one['kind']} at {when(one['received'])}: {said} ({one['state']})", markup=False)
    if "said" in told:
        _show_content(session, told["said"])


def _show_content(session: Session, said: dict[str, Any]) -> None:
    console = session.console
    console.print()
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
