"""Processing that a version brings with it: steps for the text that goes in and the text that comes out, in `processing.json`.

The file belongs to each build of its version and is part of the build's digest: other steps, another build. `engine.processing` runs them.
"""

from typing import Annotated, Literal

import msgspec
import re2
from msgspec import Meta

from penstock.core.errors import BadRequest
from penstock.core.patterns import bounded_options

FILE = "processing.json"
CODE = "processing.py"
MAX_BYTES = 1 << 18  # of either file
MOST_SECONDS = 10.0
PLACE = "{text}"
_MAX_MEMORY = 8 << 20

Pattern = Annotated[str, Meta(min_length=1, max_length=4096)]
Otherwise = Literal["keep", "empty", "fail"]


class Trim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do", tag="trim"):
    """White space at the ends goes."""

    side: Literal["both", "start", "end"] = "both"


class Replace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do", tag="replace"):
    r"""Every match of an RE2 pattern is replaced; `\1` to `\9` in `to` are groups, `\0` is the match."""

    pattern: Pattern
    to: Annotated[str, Meta(max_length=4096)] = ""


class Extract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do", tag="extract"):
    """The first match of an RE2 pattern, or one group of it, is all that is left; `otherwise` says what happens without one."""

    pattern: Pattern
    group: Annotated[int, Meta(ge=0, le=9)] = 0
    otherwise: Otherwise = "keep"


class Json(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do", tag="json"):
    """What stands at `path` (names and places, with dots) of the first JSON object or list in the text; "": all of it."""

    path: Annotated[str, Meta(max_length=1024)] = ""
    otherwise: Otherwise = "keep"


class Template(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do", tag="template"):
    """The text takes the place of `{text}`, which stands there once."""

    template: Annotated[str, Meta(min_length=len(PLACE), max_length=65536)]


class Python(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do", tag="python"):
    """A function of the version's own code, `processing.py`, makes another text of it: in a sealed process, if the version is signed.

    `seconds` is the longest that a call may take, the reading of the file included.
    """

    function: Annotated[str, Meta(pattern="^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
    seconds: Annotated[float, Meta(gt=0, le=MOST_SECONDS)] = 1.0


Step = Trim | Replace | Extract | Json | Template | Python


class Processing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done to texts.

    Attributes:
        input: to what users say in a chat, message by message, and to the prompt of a completion.
        output: to each answer.
        stream: whether an answer that some step needs as a whole may be streamed as one piece at its end (`hold`).
    """

    version: Literal[1] = 1
    input: Annotated[tuple[Step, ...], Meta(max_length=32)] = ()
    output: Annotated[tuple[Step, ...], Meta(max_length=32)] = ()
    stream: Literal["refuse", "hold"] = "refuse"

    @property
    def needs_whole(self) -> bool:
        """Whether a step on answers needs all of the text."""
        return any(isinstance(step, Extract | Json | Python) for step in self.output)

    @property
    def calls(self) -> tuple[Python, ...]:
        """The steps that call the version's own code."""
        return tuple(step for step in (*self.input, *self.output) if isinstance(step, Python))


def check_code(processing: bytes | None, code: bytes | None) -> None:
    """See that a build has `processing.py` if and only if its `processing.json` calls it, and that it is a text.

    Raises:
        BadRequest: if not; its `param` is the file.
    """
    calls = () if processing is None else read_processing(processing).calls
    if calls and code is None:
        raise _wrong(f"it calls {calls[0].function}() of {CODE}, and there is no such file", "")
    if code is None:
        return
    why = ""
    if not calls:
        why = f"it is the name of code that {FILE} calls, and no step there does; rename it, or add a step"
    elif len(code) > MAX_BYTES:
        why = f"it has more than {MAX_BYTES >> 10} KiB"
    elif not _is_text(code):
        why = "it is not UTF-8"
    if why:
        raise BadRequest(f"{CODE}: {why}.", param=CODE, code="bad_processing")


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def read_processing(data: bytes) -> Processing:
    """The file's content, checked.

    Raises:
        BadRequest: its `param` is the path of what is wrong, from `processing.json` on.
    """
    if len(data) > MAX_BYTES:
        raise BadRequest(f"{FILE} has more than {MAX_BYTES >> 10} KiB.", param=FILE, code="bad_processing")
    try:
        made = msgspec.json.decode(data, type=Processing)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(str(error) or "it is nested too deeply", "") from None
    for where in ("input", "output"):
        for index, step in enumerate(getattr(made, where)):
            _check(step, f"{where}.{index}")
    return made


def compile_step(step: Replace | Extract) -> "re2._Regexp":
    """The step's pattern, to be searched in UTF-8.

    Raises:
        BadRequest: if RE2 refuses it, or it needs too much memory.
    """
    options = bounded_options(_MAX_MEMORY)
    options.never_capture = False
    try:
        return re2.compile(step.pattern.encode(), options)
    except re2.error as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise BadRequest(f"RE2 refuses {step.pattern[:200]!r}: {reason}.", code="bad_pattern") from None


def _check(step: Step, where: str) -> None:
    if isinstance(step, Template) and step.template.count(PLACE) != 1:
        raise _wrong(f"{PLACE} must stand in it once", f"{where}.template")
    if not isinstance(step, Replace | Extract):
        return
    try:
        compiled = compile_step(step)
    except BadRequest as error:
        raise _wrong(error.message.rstrip("."), f"{where}.pattern") from None
    if isinstance(step, Extract) and step.group > compiled.groups:
        raise _wrong(f"the pattern has {compiled.groups} groups, not {step.group}", f"{where}.group")
    if isinstance(step, Replace):
        if compiled.search(b"") is not None:
            raise _wrong("the pattern matches the empty text, so that it would match everywhere", f"{where}.pattern")
        for group in groups_in(step.to):
            if group > compiled.groups:
                raise _wrong(f"the pattern has {compiled.groups} groups, not {group}", f"{where}.to")


def groups_in(text: str) -> list[int]:
    r"""The groups that a replacement names: the digits after single backslashes; `\\` is a backslash."""
    found = []
    at = 0
    while at < len(text) - 1:
        if text[at] == "\\":
            if text[at + 1].isdecimal() and text[at + 1].isascii():
                found.append(int(text[at + 1]))
            at += 1
        at += 1
    return found


def _wrong(reason: str, where: str) -> BadRequest:
    path = f"{FILE}.{where}" if where else FILE
    return BadRequest(f"{path}: {reason}.", param=path, code="bad_processing")
