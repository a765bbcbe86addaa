"""Evaluations as commands watch and show them."""

import time
from typing import TYPE_CHECKING, Any

from penstock.cli.client import at
from penstock.cli.session import Session
from penstock.cli.show import pairs, share, table, when
from penstock.core.errors import Conflict

if TYPE_CHECKING:
    from rich.progress import Progress

_LOOK_S = 0.5
_OVER = ("done", "failed", "cancelled")


def watch(session: Session, identities: list[str]) -> list[dict[str, Any]]:
    """The evaluations, once all of them are over; their progress is shown until then.

    Raises:
        Conflict: if one failed or was cancelled.
    """
    with _progress(session) as progress:
        jobs: dict[str, Any] = {}
        while True:
            found = [session.api.get(at("evaluations", identity)) for identity in identities]
            for one in found:
                words = f"{one['model']}:{one['label']} {one['suite'] or one['kind']}"
                if one["id"] not in jobs:
                    jobs[one["id"]] = progress.add_task(words, total=one["total"])
                waits = " (waits)" if one["state"] == "queued" else ""
                progress.update(jobs[one["id"]], completed=one["done"], description=words + waits)
            if all(one["state"] in _OVER for one in found):
                break
            time.sleep(_LOOK_S)
    for one in found:
        if one["state"] != "done":
            what = one["suite"] or one["kind"]
            raise Conflict(
                f"The evaluation {one['id']} ({what} of {one['model']}:{one['label']}) is {one['state']}: {one['detail']}"
            )
    return found


def show_evaluation(session: Session, told: dict[str, Any]) -> None:
    """Answers with one evaluation: its figures, what it is bound to, and, of a replay, what was answered otherwise."""

    def people() -> None:
        figures = told["result"].get("figures", [])
        table(
            session.console,
            ("SLICE", "MEASURE", "ITEMS", "VALUE", "95 % INTERVAL"),
            [
                (
                    one["slice"] or "all",
                    one["measure"],
                    one["items"],
                    _value(one, "value"),
                    f"{_value(one, 'low')} to {_value(one, 'high')}" if "low" in one else "-",
                )
                for one in figures
            ],
            empty=told["detail"] or f"It is {told['state']}.",
        )
        again = told["result"].get("replay")
        pairs(
            session.console,
            [
                ("evaluation", told["id"]),
                ("finished", when(told["finished_at"])),
                ("replay of", f"{again['of']}: {again['same']} of {again['items']} alike" if again else None),
                ("different", again["different"] if again else None),
                ("version", told["digest"]),
                ("build", told["build"]),
                ("suite", told["suite_digest"]),
                ("settings", told["settings"]),
                ("engine", told["engine_digest"]),
            ],
        )

    session.answer(told, people)


def _value(figure: dict[str, Any], name: str) -> str:
    return share(figure[name]) if figure["measure"] == "right" else f"{figure[name]:.4g}"


def _progress(session: Session) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=session.as_json,
    )
