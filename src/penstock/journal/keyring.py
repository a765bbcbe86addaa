"""The keys of one installation, found by its settings: the master key, what it wraps, and how it is changed for another."""

import time
from pathlib import Path

from penstock.core.errors import BadRequest, Conflict, NotFound, Unavailable
from penstock.core.settings import Settings
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.masterkey import Wrapping, make_key, parse_key, read_key
from penstock.journal.whole import sync_folder


def master_key(settings: Settings, *, make: bool = True) -> Wrapping:
    """The master key: of the setting, else of the file. The file of the data folder is made if it is not there, unless `make` is off.

    Raises:
        Damaged: if it is none, or the file is not there.
        Unavailable: if the file cannot be written.
    """
    given = settings.keys
    if given.master:
        return Wrapping(parse_key(given.master, "keys.master"))
    if given.master_file or not make:
        return Wrapping(read_key(_master_file(settings)))
    try:
        return Wrapping(make_key(_master_file(settings)))
    except OSError as error:
        raise Unavailable(f"{_master_file(settings)} cannot be written: {error.strerror}.", param="keys") from None


def _master_file(settings: Settings) -> Path:
    return Path(settings.keys.master_file or Path(settings.data) / "master.key").absolute()


def keys_folder(settings: Settings) -> Path:
    """Where the keys of subjects are."""
    return Path(settings.keys.folder or Path(settings.data) / "keys").absolute()


def open_keys(settings: Settings, *, make: bool = True) -> FileKeystore:
    """The keys that content is encrypted and names are hashed under; made if there are none, unless `make` is off.

    Raises:
        Conflict: if they are wrapped by another master key.
        Damaged: if they or the master key cannot be understood.
        NotFound: if there are none, and none may be made.
        Unavailable: if the disk refuses.
    """
    folder = keys_folder(settings)
    if not make and not folder.is_dir():
        raise NotFound(f"There are no keys in {folder}; name the data folder with --data.")
    former = Path(settings.data) / "subject.key"
    return FileKeystore.open(folder, master_key(settings, make=make), former=former, clock=time.time)


def rotate_master_key(settings: Settings, path: Path | None) -> tuple[str, str, Path]:
    """Has the keys wrapped by the master key in `path`, which is made if it is not there; without one the file that is used now gets a new one.

    Gives the marks of the old and the new key, and the file of the new one. A rotation that was cut off is finished by the next.

    Raises:
        BadRequest: if the master key is given by the environment and no file is named for the new one.
        Conflict: if the keys are wrapped by neither.
        PenstockError: as `open_keys`.
    """
    if path is None and settings.keys.master:
        raise BadRequest(
            "The master key is given by keys.master: name a file for the new one.", param="--new-master-file"
        )
    file = _master_file(settings)
    draft = file.with_name(f"{file.name}.new") if path is None else path.absolute()
    try:
        new = Wrapping(make_key(draft))
        old = master_key(settings, make=False)
        try:
            keys = open_keys(settings, make=False)
        except Conflict:  # another rotation was cut off behind the wrapping
            keys = None
            _open_with(settings, new)
        if keys is not None:
            keys.rewrap(old, new)
            keys.close()
        if path is None:
            draft.replace(file)
            sync_folder(file.parent)
    except OSError as error:
        raise Unavailable(f"The keys cannot be read and written: {error.strerror}.") from None
    return old.mark, new.mark, file if path is None else draft


def _open_with(settings: Settings, master: Wrapping) -> None:
    FileKeystore.open(keys_folder(settings), master).close()
