"""A request as the journal beside the data folder has it: while control is away, or has not read that far."""

from pathlib import Path
from typing import Any

import msgspec

from penstock.cli.session import Session


def from_journal(session: Session, request_id: str) -> dict[str, Any] | None:
    """What `GET /api/v1/requests/ID` would tell, with `source: journal`; None if it is not here."""
    from penstock.control.api.engine_told import engine_told, tries_told
    from penstock.control.api.statistics import exchange_told, observation_told, phases_told
    from penstock.journal.lookup import look_up

    folder = Path(session.settings.data) / "journal"
    exchange, said = look_up(folder, request_id) if folder.is_dir() else (None, [])
    if exchange is None:
        return None
    experiment = {name: getattr(exchange, name) for name in ("arm", "epoch", "propensity", "unit")}
    return {
        "source": "journal",
        "request": msgspec.to_builtins(exchange_told(msgspec.msgpack.encode(exchange))),
        "phases": phases_told(exchange.phases),
        "engine": engine_told(exchange),
        "tries": tries_told(exchange),
        "experiment": {"name": exchange.experiment, **experiment} if exchange.experiment else None,
        "observations": [
            {"state": "not read by control yet", **msgspec.to_builtins(observation_told(one))} for one in said
        ],
    }
