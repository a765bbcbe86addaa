"""The files of one worker's journal: which there are, how large, and which may go."""

from collections.abc import Mapping
from pathlib import Path

from penstock.journal.format import SUFFIX, segment_name


def list_segments(directory: Path) -> list[int]:
    """The numbers of the segments in `directory`, ascending; empty if there is no such folder."""
    if not directory.is_dir():
        return []
    return sorted(int(p.stem) for p in directory.glob(f"*{SUFFIX}") if p.stem.isdecimal())


def segment_sizes(directory: Path) -> dict[int, int]:
    """The size in bytes of each segment, ascending by number."""
    sizes: dict[int, int] = {}
    for segment in list_segments(directory):
        try:
            sizes[segment] = (directory / segment_name(segment)).stat().st_size
        except FileNotFoundError:  # another process has just removed it
            continue
    return sizes


def removable(sizes: Mapping[int, int], shipped_before: int, excess: int) -> list[int]:
    """The oldest segments to remove so that `excess` bytes come free, only of those that every reader has passed on.

    Args:
        sizes: bytes by segment number.
        shipped_before: segments with smaller numbers have been passed on whole by every reader.
        excess: bytes to free; fewer are freed if too little has been passed on. The newest segment is never removed.
    """
    chosen: list[int] = []
    newest = max(sizes, default=0)
    for segment in sorted(sizes):
        if excess <= 0 or segment >= shipped_before or segment == newest:
            break
        chosen.append(segment)
        excess -= sizes[segment]
    return chosen
