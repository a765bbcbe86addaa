"""How values are shown to people: tables, times, sizes, shares."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from penstock.core.digests import short


def table(console: Console, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Prints `rows` below `columns`, or the sentence `empty` if there are none."""
    found = list(rows)
    if not found:
        console.print(empty)
        return
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in found:
        made.add_row(*[escape(shown(value)) for value in row])
    console.print(made)


def pairs(console: Console, rows: Iterable[tuple[str, Any]]) -> None:
    """Prints names and values, one pair a line; values that are missing are left out."""
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in rows:
        if value not in (None, "", [], {}):
            made.add_row(name, escape(shown(value)))
    console.print(made)


def shown(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(shown(item) for item in value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{name}={shown(item)}" for name, item in value.items()) or "-"
    text = str(value)
    return short(text) if text.startswith("sha256:") and len(text) == 71 else text


def when(at: float | None) -> str:
    """Unix seconds as a local time."""
    return "-" if not at else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def size(count: float | None) -> str:
    """Bytes, with a unit."""
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def share(part: float | None) -> str:
    """A share in percent."""
    return "-" if part is None else f"{100 * part:.4g} %"
