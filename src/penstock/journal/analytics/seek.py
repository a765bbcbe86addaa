"""Which exchanges are looked for: one value, told to DuckDB as SQL and to records one by one. Both find the same."""

import datetime as dt

import msgspec

from penstock.core.errors import BadRequest
from penstock.core.exchange import Exchange
from penstock.journal.analytics.store import quoted

DAY_US = 86_400_000_000
NEWEST = 9_999_999_999_999_999  # after all that is recorded: in the year 2286
ANY = "*"  # as `finding`: whatever was found
_EQUAL = ("tenant", "model", "route", "experiment", "arm", "version", "outcome", "error")


class Place(msgspec.Struct, frozen=True, order=True):
    """Where an exchange stands among all: by when its first byte came (microseconds since 1970), then by its id.

    A page of what is newest first goes on with all that is less than the place of its last one, whatever has been recorded since.
    """

    us: int
    id: str = ""

    def text(self) -> str:
        """As callers are handed it, to hand it back."""
        return f"{self.us}.{self.id}"


class Sought(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for; what is None matches all. `start_us` is in microseconds since 1970; there is no end, which is a `Place` to begin below."""

    start_us: int | None = None
    tenant: str | None = None
    model: str | None = None
    route: str | None = None
    experiment: str | None = None
    arm: str | None = None
    version: str | None = None
    outcome: str | None = None
    error: str | None = None
    status: int | None = None
    min_latency_ms: float | None = None
    min_cost_usd: float | None = None
    finding: str | None = None  # a rule that found something, or `ANY`
    id: str | None = None  # any part of it

    @property
    def everything(self) -> bool:
        """Whether nothing but time is asked."""
        return self == Sought(start_us=self.start_us)


def place_of(exchange: Exchange) -> Place:
    """Where `exchange` stands."""
    return Place(micros(exchange.at), exchange.id)


def micros(at: float) -> int:
    """Unix seconds in microseconds, as the store's files have them."""
    return round(at * 1e6)


def start_of(day: str) -> int:
    """When the UTC day YYYY-MM-DD begins, in microseconds."""
    return int(dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC).timestamp()) * 1_000_000


def day_of(us: int) -> str:
    """The UTC day of a moment, YYYY-MM-DD."""
    return dt.datetime.fromtimestamp(us // 1_000_000, dt.UTC).date().isoformat()


def place_from(text: str) -> Place:
    """What `Place.text` told.

    Raises:
        BadRequest: if it did not.
    """
    us, dot, name = text.partition(".")
    if not dot or not us.isdecimal() or not us.isascii() or len(us) > 16:
        raise BadRequest(f"before is {text[:64]!r}: the `next` of the page before is needed.", param="before")
    return Place(int(us), name)


def fits(exchange: Exchange, sought: Sought) -> bool:
    """Whether `exchange` is one of those looked for."""
    if sought.start_us is not None and micros(exchange.at) < sought.start_us:
        return False
    for name in _EQUAL:
        wanted = getattr(sought, name)
        if wanted is not None and getattr(exchange, name) != wanted:
            return False
    return (
        (sought.status is None or exchange.status == sought.status)
        and (sought.min_latency_ms is None or exchange.phases.done / 1e6 >= sought.min_latency_ms)
        and (sought.min_cost_usd is None or exchange.cost_nanousd >= sought.min_cost_usd * 1e9)
        and (sought.finding is None or any(sought.finding in {ANY, one.rule} for one in exchange.findings))
        and (sought.id is None or sought.id in exchange.id)
    )


def statement(sought: Sought, below: Place, limit: int) -> str:
    """A SELECT of microseconds and ids: the newest `limit` that are looked for and stand below `below`, newest first."""
    parts = [f"(started < {_time(below.us)}{_same(below)})"]
    if sought.start_us is not None:
        parts.append(f"started >= {_time(sought.start_us)}")
    for name in _EQUAL:
        wanted = getattr(sought, name)
        if wanted is not None:
            parts.append(f"{name} = {quoted(wanted)}")
    if sought.status is not None:
        parts.append(f"status = {sought.status}")
    if sought.min_latency_ms is not None:
        parts.append(f"coalesce(latency_ms, 0) >= {_double(sought.min_latency_ms)}")
    if sought.min_cost_usd is not None:
        parts.append(f"cost_nanousd >= {_double(sought.min_cost_usd * 1e9)}")
    if sought.finding == ANY:
        parts.append("rules != ''")
    elif sought.finding is not None:
        parts.append(f"rules != '' AND list_contains(string_split(rules, ','), {quoted(sought.finding)})")
    if sought.id is not None:
        parts.append(f"contains(id, {quoted(sought.id)})")
    return (
        f"SELECT epoch_us(started) AS us, id FROM exchanges WHERE {' AND '.join(parts)} "
        f"ORDER BY started DESC, id DESC LIMIT {limit}"
    )


def _same(below: Place) -> str:
    return f" OR (started = {_time(below.us)} AND id < {quoted(below.id)})" if below.id else ""


def _time(us: int) -> str:
    return f"make_timestamp({us}::BIGINT)"


def _double(value: float) -> str:
    return f"{float(value)!r}::DOUBLE"
