"""What the console reads of drift, and of what alerts did; fields that it does not show are not here."""

import datetime as dt

import msgspec


class DriftAlarm(msgspec.Struct, frozen=True, kw_only=True):
    """A change that was found; `at` in Unix seconds."""

    at: float
    words: str


class DriftDay(msgspec.Struct, frozen=True, kw_only=True):
    """The day so far against the reference."""

    n: int
    psi: float
    shifted: bool = False


class DriftPast(msgspec.Struct, frozen=True, kw_only=True):
    """A day that is over against the reference; `day` counts from 1970, in UTC."""

    day: int
    signal: str
    n: int
    psi: float
    distance: float
    p: float
    shifted: bool

    @property
    def date(self) -> str:
        """YYYY-MM-DD."""
        return (dt.date(1970, 1, 1) + dt.timedelta(days=self.day)).isoformat()


class DriftSignal(msgspec.Struct, frozen=True, kw_only=True):
    """One signal and what it is compared with."""

    signal: str
    against: str
    state: str
    observations: int = 0
    needed: int = 0
    watched: int = 0
    reference: float | None = None
    recent: float | None = None
    standing: float = 0.0
    alarm: DriftAlarm | None = None
    today: DriftDay | None = None


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A model and arm that is watched."""

    model: str
    arm: str = ""
    since: float = 0.0
    last_at: float = 0.0
    state: str = ""
    run_length: int = 0
    signals: tuple[DriftSignal, ...] = ()


class AlertAction(msgspec.Struct, frozen=True, kw_only=True):
    """What an alert made control do, or why it did nothing."""

    sequence: int
    at: float
    alert: str
    environment: str
    model: str
    label: str
    action: str
    reason: str
