"""Names of a version's files: which are taken, which role they have, which are refused."""

import io
import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

from penstock.core.errors import BadRequest
from penstock.registry.pickles import runs_code

Role = Literal["weights", "tokenizer", "config", "code", "card", "other"]
MAX_FILES = 10_000
MAX_PATH = 255
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(1, 10)), *(f"lpt{i}" for i in range(1, 10))}
)
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".npz.pkl", ".pt2")
_PICKLE_NAMES = frozenset(
    {"pytorch_model.bin", "optimizer.bin", "training_args.bin", "scheduler.bin", "random_states_0.bin"}
)
_TENSORS = re.compile(r"pytorch_model(?:-\d{1,6}-of-\d{1,6})?\.bin")
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".onnx", ".xml", ".h5", ".msgpack")
_TOKENIZER = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "spiece", "chat_template")


def check_path(path: str) -> str:
    """`path` itself, if a version may hold a file of this name.

    A name is relative, in NFC, at most 255 bytes, of parts that are neither empty nor `.` nor `..`, without control characters,
    backslashes, colons or other characters that some file system treats specially, and without names that Windows reserves.

    Raises:
        BadRequest: saying what is wrong; `param` is `files`.
    """
    reason = _wrong(path)
    if reason is not None:
        raise BadRequest(f"The file name {path!r} is refused: {reason}.", param="files", code="bad_file_name")
    return path


def _wrong(path: str) -> str | None:
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        return "it is not Unicode text"
    if not path or len(raw) > MAX_PATH:
        return f"it must have 1 to {MAX_PATH} bytes"
    if unicodedata.normalize("NFC", path) != path:
        return "it is not in Unicode's NFC form"
    for character in path:
        if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
            return f"it holds the character U+{ord(character):04X}"
        if character in '\\:*?"<>|':
            return f"it holds {character!r}"
    for part in path.split("/"):
        if part in {"", ".", ".."}:
            return "it leaves its folder, or has an empty part"
        if part != part.strip() or part.endswith("."):
            return "a part begins or ends with a space, or ends with a dot"
        if part.partition(".")[0].lower() in _RESERVED:
            return f"{part!r} is a reserved name"
    return None


def check_paths(paths: Iterable[str]) -> None:
    """Check each path, and that no two would be one file where letters' case does not count, and that none is another's folder.

    Raises:
        BadRequest: naming the path.
    """
    seen: dict[str, str] = {}
    for path in paths:
        check_path(path)
        folded = unicodedata.normalize("NFC", path.casefold())
        if folded in seen:
            raise BadRequest(
                f"The file names {seen[folded]!r} and {path!r} are one where case does not count.",
                param="files",
                code="bad_file_name",
            )
        seen[folded] = path
        if len(seen) > MAX_FILES:
            raise BadRequest(f"A version holds at most {MAX_FILES} files.", param="files")
    for folded, path in seen.items():
        parent = folded.rpartition("/")[0]
        while parent:
            if parent in seen:
                raise BadRequest(f"{seen[parent]!r} is both a file and the folder of {path!r}.", param="files")
            parent = parent.rpartition("/")[0]


def role_of(path: str) -> Role:
    """What a file is, by its name."""
    name = path.rpartition("/")[2].lower()
    if path.lower() == "readme.md":
        return "card"
    if name.startswith(_TOKENIZER) or "tokenizer" in name:
        return "tokenizer"
    if name.endswith(_WEIGHTS):
        return "weights"
    if name.endswith((".json", ".yaml", ".yml", ".toml")):
        return "config"
    if name.endswith((".py", ".jinja", ".jinja2")):
        return "code"
    return "other"


def is_tensor_pickle(path: str) -> bool:
    """Whether a file has a name under which PyTorch keeps tensors as a pickle: an Environment's `pickles` may let it in."""
    return _TENSORS.fullmatch(path.rpartition("/")[2]) is not None


def refuse_pickle_name(path: str, *, tensors: bool = False) -> None:
    """Refuse a file whose name says that it is a pickle: loading one runs whatever code it holds. With `tensors` those of PyTorch's tensors are let by.

    Raises:
        BadRequest: if so.
    """
    name = path.rpartition("/")[2].lower()
    if tensors and is_tensor_pickle(path):
        return
    if name.endswith(_PICKLES) or name in _PICKLE_NAMES or name.startswith("pytorch_model-"):
        raise refuse_pickle(path)


def is_pickle(head: bytes) -> bool:
    """Whether a file's first bytes are those of something that runs code when it is loaded: a pickle, or an archive with one.

    A pickle of protocol 2 or later begins with the PROTO opcode (Python's `pickletools`); older ones have no mark of their own and are
    known by what they do. PyTorch and numpy write zip archives of pickles.
    """
    if head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}:
        return True
    return head[:4] == b"PK\x03\x04" or runs_code(io.BytesIO(head))


def refuse_pickle_bytes(path: str, head: bytes) -> None:
    """Refuse a file whose first bytes `is_pickle` knows. A .safetensors file begins with the length of its header, which may be any number.

    Raises:
        BadRequest: if so.
    """
    if is_pickle(head) and not path.lower().endswith(".safetensors"):
        raise refuse_pickle(path)


def refuse_pickle(path: str, found: str = "") -> BadRequest:
    """What is said of a pickle that is not taken; `found` is what a scan found in it."""
    why = f": {found}" if found else ": pickles are refused"
    return BadRequest(
        f"{path!r} is a pickle, which runs code when it is loaded{why}.",
        param="files",
        code="pickle_refused",
        hint="Save the weights as safetensors.",
    )
