from penstock.core.exchange import Exchange, Observation, Opened, Phases, Record, Usage


def exchange(number: int, **changes: object) -> Exchange:
    fields: dict[str, object] = {
        "id": f"req_{number:026d}",
        "at": 1000.0 + number,
        "worker": "w",
        "tenant": "acme",
        "route": "bot",
        "status": 200,
        "phases": Phases(1, 2, 3, 4, 5, 6),
        "usage": Usage(10, 20),
        "cost_nanousd": 30,
    }
    return Exchange(**{**fields, **changes})  # type: ignore[arg-type]


def opened(number: int) -> Opened:
    return Opened(exchange=exchange(number, stream=True))


def observation(number: int) -> Observation:
    return Observation(
        id=f"o{number}", at=1.0, received=2000.0 + number, kind="feedback", tenant="acme", request="r", rating=1.0
    )


def ids(records: list[Record]) -> list[str]:
    return [r.exchange.id + "?" if isinstance(r, Opened) else r.id for r in records]
