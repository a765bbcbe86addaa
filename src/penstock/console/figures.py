"""How figures read: numbers with units, times, sizes and money, in few digits and the same everywhere."""

import math
from datetime import UTC, datetime

from markupsafe import Markup

NONE = "\u2013"
_SIZES = ("bytes", "kB", "MB", "GB", "TB")


def number(value: float | None) -> str:
    """A count with thin groups (`12 345`), or three significant digits with k, M, G from ten thousand on (`12.3 k`)."""
    if value is None or not math.isfinite(value):
        return NONE
    if abs(value) >= 10_000:
        for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= factor:
                return f"{_digits(value / factor)}\u202f{unit}"
    if value == int(value):
        return f"{int(value):,}".replace(",", "\u202f")
    return _digits(value)


def _digits(value: float) -> str:
    magnitude = abs(value)
    if magnitude >= 100:
        return f"{value:.0f}"
    if magnitude >= 10:
        return f"{value:.1f}"
    if magnitude >= 0.1 or magnitude == 0:
        return f"{value:.2f}"
    return f"{value:.2g}"


def seconds(value: float | None) -> str:
    """A duration of requests: `850 µs`, `12.3 ms`, `1.24 s`, `3 min 20 s`."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0\u202fs"
    if value < 0.001:
        return f"{value * 1e6:.0f}\u202fµs"
    if value < 1:
        return f"{_digits(value * 1e3)}\u202fms"
    if value < 120:
        return f"{_digits(value)}\u202fs"
    return span(value)


def span(value: float | None) -> str:
    """A longer duration in its two largest units: `40 s`, `3 min 20 s`, `5 h 12 min`, `3 d 4 h`."""
    if value is None or not math.isfinite(value):
        return NONE
    rest = round(value)
    parts = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}\u202f{unit}")
    return " ".join(parts[:2]) or "0\u202fs"


def percent(share: float | None) -> str:
    """A share in [0, 1] as a percentage: `0 %`, `0.42 %`, `12.3 %`."""
    if share is None or not math.isfinite(share):
        return NONE
    value = share * 100
    return f"{value:.0f}\u202f%" if value % 1 == 0 else f"{_digits(value)}\u202f%"


def money(usd: float | None) -> str:
    """US dollars: two decimals from one cent on, two significant digits below: `$12.30`, `$0.0042`."""
    if usd is None or not math.isfinite(usd):
        return NONE
    if usd == 0:
        return "$0"
    if abs(usd) >= 0.01:
        return f"${usd:,.2f}"
    if abs(usd) < 1e-9:
        return "< $0.000000001"
    places = 1 - math.floor(math.log10(abs(usd)))
    return f"${usd:.{places}f}"


def size(count: float | None) -> str:
    """Bytes in decimal units: `12.3 MB`."""
    if count is None:
        return NONE
    value = float(count)
    for unit in _SIZES[:-1]:
        if value < 1000:
            return f"{int(value)}\u202f{unit}" if unit == "bytes" else f"{_digits(value)}\u202f{unit}"
        value /= 1000
    return f"{_digits(value)}\u202f{_SIZES[-1]}"


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign, a real minus sign and `digits` significant digits: `+0.123`."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    text = f"{abs(value):.{digits}g}"
    if "e" in text:
        text = f"{abs(value):.6f}".rstrip("0").rstrip(".")
    return ("+" if value > 0 else "\u2212") + text


def short(digest: str | None) -> Markup:
    """The digest's first twelve digits, with the whole of it on hover."""
    if not digest:
        return Markup("{}").format(NONE)
    return Markup('<code class="digest" title="{}">{}</code>').format(digest, digest.removeprefix("sha256:")[:12])


def when(at: float | None) -> Markup:
    """A moment (Unix seconds) as `<time>`: in UTC as sent, turned into the reader's zone by the script."""
    if not at or not math.isfinite(at):
        return Markup("{}").format(NONE)
    try:
        moment = datetime.fromtimestamp(at, UTC)
    except (ValueError, OverflowError, OSError):  # beyond the year 9999, as clients may claim
        return Markup("{}").format(NONE)
    return Markup('<time datetime="{}">{} UTC</time>').format(
        moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z", moment.strftime("%Y-%m-%d %H:%M:%S")
    )
