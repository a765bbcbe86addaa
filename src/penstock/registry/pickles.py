"""What a pickle would do if somebody loaded it, read from its opcodes; nothing is ever loaded. Pure: a reader in, what was found out.

The opcodes are those of Python's `pickletools`, protocols 0 to 5, interpreted on a stack that holds texts, globals and unknowns, so that a
global behind the memo or behind `STACK_GLOBAL` is seen. PyTorch's two forms are known: the zip archive whose `data.pkl` is a pickle, and the
older one, five pickles one after the other and then numbers (`torch.serialization._legacy_load`).
"""

import io
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from penstock.registry.pickle_machine import UNREAD, Found, read_pickle

MOST_READ = 64 << 20  # bytes of one text or number
_MOST_MEMBERS = 65_536
_MOST_PICKLE = 256 << 20
_DEEPEST = 2  # archives in archives
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_TORCH_PROTOCOL = 1001
_TORCH_PICKLES = 5
_ZIP = b"PK\x03\x04"
_NAMED = 12  # findings told, at most


class Pickles(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in a file.

    Attributes:
        globals: everything that loading it would import, as `module.name`, in order.
        wrong: why it must not be loaded, in sentences; empty: it is made of tensors alone.
    """

    globals: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


def scan_torch(file: BinaryIO, size: int) -> Pickles:
    """What a file that `torch.save` is said to have written would do. Whatever cannot be read to its end is wrong."""
    found = Found()
    head = _head(file)
    if head[:4] == _ZIP:
        _archive(file, found, 0, "")
    else:
        _legacy(file, found)
        if size > 22 and _is_archive(file):
            found.say("it is a pickle and an archive at once")
    return _told(found)


def runs_code(file: BinaryIO) -> bool:
    """Whether a file begins with a pickle that calls something: a global is named and called before anything fails to be read.

    A text or a table of numbers that happens to begin like a pickle does not get so far.
    """
    found = Found()
    file.seek(0)
    read_pickle(file, found, "", 0)
    return found.calls


def head_runs_code(head: bytes) -> bool | None:
    """As `runs_code`, of a file's first bytes; None if they alone do not tell."""
    beginning = _Beginning(head)
    return True if runs_code(beginning) else None if beginning.short else False


class _Beginning(io.BytesIO):
    short = False  # more was asked for than there is

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.short |= size is None or size < 0 or len(data) < size
        return data

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(size)
        self.short |= not line.endswith(b"\n")
        return line


# -- files -----------------------------------------------------------------------------------------------------------------


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(4)


def _is_archive(file: BinaryIO) -> bool:
    try:
        return zipfile.is_zipfile(file)
    except (OSError, ValueError):
        return False


def _legacy(file: BinaryIO, found: Found) -> None:
    """Five pickles: a magic number, a version, about the system, the object, the keys of what follows."""
    file.seek(0)
    for number in range(_TORCH_PICKLES):
        value = read_pickle(file, found, "", number)
        if found.wrong and value is UNREAD:
            return
        if (number == 0 and value != _TORCH_MAGIC) or (number == 1 and value != _TORCH_PROTOCOL):
            found.say("it is no file that PyTorch has written")
            return


def _archive(file: BinaryIO, found: Found, depth: int, where: str) -> None:
    if depth > _DEEPEST:
        found.say(f"{where}archives lie in archives more than {_DEEPEST} deep")
        return
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            if len(infos) > _MOST_MEMBERS:
                found.say(f"{where}it has {len(infos)} members, and at most {_MOST_MEMBERS} are read")
                return
            pickles = 0
            for info in sorted(_sound(infos, found, where), key=lambda one: one.header_offset):
                pickles += _member(archive, info, found, depth, where)
            if not pickles and not found.wrong:
                found.say(f"{where}it holds no data.pkl, so PyTorch has not written it")
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, RuntimeError, EOFError) as error:
        found.say(f"{where}the archive cannot be read ({str(error)[:100]})")


def _sound(infos: list[zipfile.ZipInfo], found: Found, where: str) -> Iterator[zipfile.ZipInfo]:
    seen: set[str] = set()
    for info in infos:
        name = info.filename
        if name in seen:
            found.say(f"{where}{name[:100]!r} is in the archive twice")
        elif info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
            found.say(f"{where}{name[:100]!r} is compressed or encrypted, which PyTorch's are not")
        elif name.endswith("constants.pkl") or "/code/" in f"/{name}":
            found.say(f"{where}{name[:100]!r} is a part of TorchScript, which is code")
        else:
            yield info
        seen.add(name)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, found: Found, depth: int, where: str) -> bool:
    """Looks into one member; whether it is the pickle that PyTorch reads."""
    where = f"{where}{info.filename[:100]}: "
    with archive.open(info) as member:
        head = member.read(2)
        if info.filename.endswith((".pkl", ".pickle")):
            member.seek(0)
            if info.file_size > _MOST_PICKLE:
                found.say(f"{where}the pickle has {info.file_size} bytes, and at most {_MOST_PICKLE} are read")
                return False
            read_pickle(io.BytesIO(member.read()), found, where, 0)
            return info.filename.endswith("data.pkl")
        if head == _ZIP[:2] and head + member.read(2) == _ZIP:
            member.seek(0)
            _archive(member, found, depth + 1, where)  # type: ignore[arg-type]
        elif head[:1] == b"\x80":
            member.seek(0)
            other = Found()  # numbers may begin like a pickle: what they would call tells
            read_pickle(member, other, where, 0)  # type: ignore[arg-type]
            if other.calls:
                found.say(f"{where}it holds a pickle of its own")
    return False


def _told(found: Found) -> Pickles:
    wrong = list(found.wrong)
    if len(wrong) > _NAMED:
        wrong = [*wrong[:_NAMED], f"and {len(wrong) - _NAMED} more"]
    return Pickles(globals=tuple(sorted(f"{a}.{b}"[:200] for a, b in found.names))[:1000], wrong=tuple(wrong))
