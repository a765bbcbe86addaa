"""The bar of what takes a while: bytes that were read, sent, fetched or checked."""

from typing import TYPE_CHECKING

from penstock.cli.session import Session

if TYPE_CHECKING:
    from rich.progress import Progress


def progress_of(session: Session) -> "Progress":
    """A bar on stderr, for people alone; it is gone when the work is done."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=session.as_json or not console.is_terminal,
    )
