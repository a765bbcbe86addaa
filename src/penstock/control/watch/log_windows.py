"""How many records fit a log alert in its last minutes: exact, in as much memory as an alert needs to fire."""

from bisect import insort
from collections.abc import Iterator, Sequence

import msgspec

from penstock.journal.log_rules import LogAlert, Record, group_of, time_of

MOST_GROUPS = 10_000  # of one alert; those that were silent the longest are forgotten first


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """One alert and group that has enough records. `count` is at least so many, since more than `LogAlert.count` are not kept."""

    alert: LogAlert
    group: str
    count: int
    since: float  # of the first record that is counted, Unix seconds


class LogWindows:
    """The newest times of what fits, by alert and group. Owned by one loop; records may come in any order."""

    def __init__(self, alerts: Sequence[LogAlert], slow_s: float) -> None:
        self._alerts = tuple(alerts)
        self._slow_s = slow_s
        self._times: dict[str, dict[str, list[float]]] = {alert.name: {} for alert in alerts}

    def add(self, record: Record) -> None:
        """One more record."""
        for alert in self._alerts:
            group = group_of(alert, record, self._slow_s)
            if group is None:
                continue
            groups = self._times[alert.name]
            times = groups.pop(group, None) or []
            groups[group] = times  # at the end: those at the beginning were silent the longest
            if len(groups) > MOST_GROUPS:
                del groups[next(iter(groups))]
            insort(times, time_of(record))
            if len(times) > alert.count:
                del times[0]

    def firing(self, now: float) -> Iterator[Firing]:
        """What has enough records between `now` and the alert's minutes before it; the rest that is older is forgotten."""
        for alert in self._alerts:
            groups = self._times[alert.name]
            oldest = now - alert.minutes * 60
            for group in [name for name, times in groups.items() if times[-1] < oldest]:
                del groups[group]
            for group, times in groups.items():
                if len(times) == alert.count and times[0] >= oldest:
                    yield Firing(alert=alert, group=group, count=len(times), since=times[0])
