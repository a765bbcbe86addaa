"""Which files the store consists of, and how far each journal has been read: one log of commits, so that both change together.

`LOG/NNNNNNNNNN.json` is a commit: positions, files that are new, files that are gone; `NNNNNNNNNN.state.json` all of it up to there, after
which older entries are deleted. A file that no commit names does not exist for readers, whatever a killed writer left lying about. The
idea is Delta Lake's (Armbrust et al., VLDB 2020), for one writer.
"""

import os
import re
from pathlib import Path
from typing import TypeVar

import msgspec

from penstock.core.errors import Conflict, Damaged
from penstock.journal.analytics.tables import TableName, folder_of
from penstock.journal.format import Position

T = TypeVar("T")
LOG = "log"
KEEP = 64  # commits between two whole states
_ENTRY = re.compile(r"(\d{10})(\.state)?\.json")
_TRIES = 20
_FORGET_S = 86400.0  # a file that was retired longer ago has been deleted, or is a stray


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A Parquet file of one table, day and tenant. `merged` files hold no id twice."""

    table: TableName
    day: str
    tenant: str
    name: str
    rows: int
    bytes: int
    schema: int
    merged: bool = False

    @property
    def path(self) -> str:
        """Below the store's folder."""
        return f"{folder_of(self.table, self.day, self.tenant)}/{self.name}"


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """One change. `positions` are the journals' that it moves; `gone` are paths; `at` is in Unix seconds."""

    number: int
    at: float
    positions: dict[str, Position] = {}
    new: tuple[File, ...] = ()
    gone: tuple[str, ...] = ()


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The store after commit `number`. `retired` files are of no use to new readers, and are deleted some time after (Unix seconds)."""

    number: int = 0
    positions: dict[str, Position] = {}
    files: dict[str, File] = {}
    retired: dict[str, float] = {}

    def after(self, commit: Commit) -> "State":
        """The state that `commit` leads to."""
        gone = set(commit.gone)
        files = {path: file for path, file in self.files.items() if path not in gone}
        files.update((file.path, file) for file in commit.new)
        retired = self.retired | dict.fromkeys((path for path in gone if path in self.files), commit.at)
        return State(
            number=commit.number,
            positions=self.positions | commit.positions,
            files=files,
            retired={path: at for path, at in retired.items() if path not in files and at > commit.at - _FORGET_S},
        )


class Catalog:
    """The log in `folder`. One process writes it, any number read it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder / LOG

    def read(self) -> State:
        """The newest state.

        Raises:
            Damaged: if the log does not lead to one.
        """
        for _ in range(_TRIES):
            try:
                return self._read()
            except FileNotFoundError:  # an entry was folded into a state while we looked
                continue
        raise Damaged(f"The log of the analytical store in {self._log} does not hold still.")

    def commit(
        self,
        state: State,
        at: float,
        *,
        positions: dict[str, Position] | None = None,
        new: tuple[File, ...] = (),
        gone: tuple[str, ...] = (),
    ) -> State:
        """Append a change to `state`, whole or not at all; what is then.

        Raises:
            Conflict: if another process has appended one.
            OSError: if the disk refuses.
        """
        commit = Commit(number=state.number + 1, at=at, positions=positions or {}, new=new, gone=gone)
        after = state.after(commit)
        self._put(f"{commit.number:010d}.json", msgspec.json.encode(commit))
        if commit.number % KEEP == 0:
            self._put(f"{commit.number:010d}.state.json", msgspec.json.encode(after))
            self._fold(commit.number)
        return after

    def forget_retired(self, state: State, before: float) -> State:
        """Delete files that were retired before `before` (Unix seconds)."""
        old = [path for path, at in state.retired.items() if at < before]
        for path in old:
            (self.folder / path).unlink(missing_ok=True)
        kept = {path: at for path, at in state.retired.items() if path not in old}
        return msgspec.structs.replace(state, retired=kept)

    def sweep(self, state: State) -> int:
        """Delete what no commit names: a killed writer's. Only for the writer, when it starts; how many there were."""
        known = state.files.keys() | state.retired.keys()
        strays = [p for p in self.folder.rglob("*") if p.is_file() and p.suffix in {".parquet", ".draft"}]
        strays = [p for p in strays if str(p.relative_to(self.folder)) not in known]
        for path in strays:
            path.unlink()
        return len(strays)

    def _read(self) -> State:
        entries = self._entries()
        whole = max((number for number, is_state in entries if is_state), default=0)
        state = State()
        if whole:
            state = self._decode(self._log / f"{whole:010d}.state.json", State)
        for number in sorted(number for number, is_state in entries if not is_state and number > whole):
            commit = self._decode(self._log / f"{number:010d}.json", Commit)
            if number != state.number + 1:
                raise FileNotFoundError(number)
            state = state.after(commit)
        return state

    def _entries(self) -> list[tuple[int, bool]]:
        if not self._log.is_dir():
            return []
        found = [_ENTRY.fullmatch(name) for name in os.listdir(self._log)]  # noqa: PTH208 - names are wanted
        return [(int(one[1]), bool(one[2])) for one in found if one is not None]

    @staticmethod
    def _decode(path: Path, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except msgspec.DecodeError as error:
            raise Damaged(f"{path} is no entry of the analytical store's log: {error}.") from None

    def _put(self, name: str, data: bytes) -> None:
        self._log.mkdir(parents=True, exist_ok=True)
        draft = self._log / f"{name}.draft"
        write_whole(draft, data)
        try:
            os.link(draft, self._log / name)  # unlike a rename, never over another's
        except FileExistsError:
            raise Conflict(f"Another process writes the analytical store in {self.folder}: {name} is there.") from None
        finally:
            draft.unlink()
        sync_folder(self._log)

    def _fold(self, whole: int) -> None:
        for number, _ in self._entries():
            if number < whole:
                (self._log / f"{number:010d}.json").unlink(missing_ok=True)
                (self._log / f"{number:010d}.state.json").unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write and sync a file."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a loss of power."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
