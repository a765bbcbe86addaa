"""Which files a version may hold: names that are safe on every system, and formats that do not run code when they are loaded."""

import re
import unicodedata
from typing import Literal

from penstock.core.errors import BadRequest

Role = Literal["weights", "tokenizer", "config", "code", "card", "data", "other"]

MAX_PATH = 255
MAX_FILES = 10_000
_RESERVED = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(1, 10)), *(f"lpt{i}" for i in range(1, 10))}
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".bin")
_OLD_PICKLE = re.compile(rb"[(\]}]*c[A-Za-z_][A-Za-z0-9_.]*\n[A-Za-z_][A-Za-z0-9_.]*\n")
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".onnx")


def check_path(path: str) -> str:
    """`path` itself, if it is a relative path that means the same everywhere.

    Raises:
        BadRequest: for absolute paths, `..`, empty or dotted parts, back-slashes, control characters, text that is not in Unicode's
            normal form C, names that Windows reserves, and paths over 255 bytes. The message names the path.
    """
    shown = path.encode("unicode_escape").decode()[:120]

    def refuse(why: str) -> BadRequest:
        return BadRequest(f"The file name {shown!r} is refused: {why}.", code="bad_file_name", param="path")

    if not path or len(path.encode()) > MAX_PATH:
        raise refuse(f"it must have 1 to {MAX_PATH} bytes")
    if unicodedata.normalize("NFC", path) != path:
        raise refuse("it is not in Unicode's normal form C")
    if any(unicodedata.category(c).startswith("C") for c in path) or any(c in path for c in '\\:*?"<>|'):
        raise refuse("it holds a character that some file systems do not take")
    for part in path.split("/"):
        if part in ("", ".", ".."):
            raise refuse("it must be relative, without '.', '..' or empty parts")
        if part.endswith((".", " ")) or part.startswith(" "):
            raise refuse("a part begins with a space or ends with a space or a dot")
        if part.split(".")[0].lower() in _RESERVED:
            raise refuse("it uses a name that some systems reserve")
    return path


def check_paths(paths: list[str]) -> None:
    """Checks each path, and that no two are the same on a file system that ignores case or that needs one to be a folder.

    Raises:
        BadRequest: for the first that is not fine.
    """
    if not paths:
        raise BadRequest("A version holds at least one file.", param="files")
    if len(paths) > MAX_FILES:
        raise BadRequest(f"A version holds at most {MAX_FILES} files, not {len(paths)}.", param="files")
    taken: set[str] = set()
    for path in paths:
        folded = check_path(path).casefold()
        if folded in taken:
            raise BadRequest(f"Two files are called {path!r} (upper and lower case count as the same).", param="path")
        taken.add(folded)
    for folded in taken:
        parts = folded.split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in taken:
                raise BadRequest(f"{'/'.join(parts[:depth])!r} cannot be both a file and a folder.", param="path")


def role_of(path: str) -> Role:
    """What a file is for, told from its name."""
    name = path.rsplit("/", 1)[-1].lower()
    if name == "readme.md":
        return "card"
    if "tokenizer" in name or name in ("vocab.json", "merges.txt", "special_tokens_map.json", "chat_template.jinja"):
        return "tokenizer"
    if name.endswith(_WEIGHTS):
        return "weights"
    if name.endswith((".json", ".yaml", ".yml", ".toml", ".xml")):
        return "config"
    if name.endswith(".py"):
        return "code"
    if name.endswith((".jsonl", ".csv", ".parquet")):
        return "data"
    return "other"


def may_be_pickle(path: str) -> bool:
    """Whether a file of this name is worth a look at its first bytes (`is_pickle`)."""
    return path.lower().endswith(_PICKLES)


def is_pickle(head: bytes) -> bool:
    """Whether bytes begin as something that runs code when Python loads it: a pickle, or an archive of PyTorch or numpy with one.

    A pickle of protocol 2 or later begins with the PROTO opcode (Python's `pickletools`); older ones begin with a MARK, a GLOBAL or a
    container opcode and hold no other magic. OpenVINO's and other raw `.bin` files begin with none of these by rule, so protocol
    0 and 1 are only recognised by the GLOBAL opcode's text.
    """
    if head[:1] == b"\x80" and len(head) > 1 and head[1] in range(2, 6):
        return True
    if head[:4] == b"PK\x03\x04":
        return True  # torch.save and np.savez write zip archives that hold pickles
    return _OLD_PICKLE.match(head) is not None
