"""A version's processing, run: texts that go in as a whole, answers as a whole or piece by piece, with the same result.

Pieces are released as soon as no later text can change them: a replacement holds back what could still begin a match (as content rules
do, by `guard.prefixes`), trimming the white space at the end. Steps that need the whole answer hold all of it.
"""

import json
import re
from typing import Any, Protocol

import msgspec

from penstock.core.errors import BadRequest, Damaged, UpstreamFailed
from penstock.core.patterns import compile_pattern
from penstock.guard.prefixes import ending
from penstock.registry.processing import (
    PLACE,
    Extract,
    Json,
    Processing,
    Python,
    Replace,
    Step,
    Template,
    Trim,
    compile_step,
    read_processing,
)

_MAX_MEMORY = 64 << 20
_LITERAL = r"(?:[A-Za-z0-9<>/_ :=\"'|#,;!@%&~`-]|\\[^A-Za-z0-9])+"
# From one fixed text to the next other one: the first match is the last word, though its beginnings look as if more could come.
_FENCED = re.compile(rf"(?:\(\?s\))?{_LITERAL}(?:\[\\s\\S\]|\.)[*+]\?{_LITERAL}")
_MOST_STARTS = 1000  # places at which JSON is looked for: prose full of braces costs no more


class Stage(Protocol):
    """One step at work on one text."""

    def feed(self, text: str) -> str:
        """Takes the next piece; gives what is final of the result."""
        ...

    def finish(self) -> str:
        """The text is over: the rest of the result.

        Raises:
            UpstreamFailed: if the step does not find what it must.
        """
        ...


class Chain:
    """All steps of one direction at work on one text. Deterministic: what comes out so far is a beginning of the whole result."""

    __slots__ = ("_stages",)

    def __init__(self, stages: list[Stage]) -> None:
        self._stages = stages

    def feed(self, text: str) -> str:
        """Takes the next piece; gives what is final of the result."""
        for stage in self._stages:
            if not text:
                return ""
            text = stage.feed(text)
        return text

    def finish(self) -> str:
        """The rest of the result; see `Stage.finish`."""
        text = ""
        for stage in self._stages:
            text = (stage.feed(text) if text else "") + stage.finish()
        return text

    def whole(self, text: str) -> str:
        """All of the result at once."""
        return self.feed(text) + self.finish()


class Code(Protocol):
    """The version's own code, ready to be called."""

    async def call(self, step: Python, text: str) -> str:
        """What the function that `step` names makes of `text`.

        Raises:
            UpstreamFailed: if it fails.
        """
        ...


_Part = list["_Make"] | Python  # steps that are done here, one after the other; or a call of the version's own code


class Processor:
    """A version's processing, compiled.

    Args:
        processing: what is to be done.
        code: what steps of Python call; None: nothing will be processed, only looked at.

    Attributes:
        calls: the steps that call the version's own code.
        reads: requests are processed.
        writes: answers are.
        streams: answers may be streamed.
        calls_on_answers: once an answer is whole, `complete` makes the rest of it.

    Raises:
        BadRequest: if a pattern cannot be scanned for in streams (`guard.prefixes`); its `param` is the path.
    """

    def __init__(self, processing: Processing, code: Code | None = None) -> None:
        self._input = _parts(processing.input, "input")
        output = _parts(processing.output, "output")
        begins = bool(output) and not isinstance(output[0], Python)
        self._output = output[0] if output and not isinstance(output[0], Python) else []
        self._rest = output[1:] if begins else output
        self._code = code
        self.calls = processing.calls
        self.reads = bool(self._input)
        self.writes = bool(output)
        self.calls_on_answers = bool(self._rest)
        self.streams = not processing.needs_whole or processing.stream == "hold"

    def use(self, code: Code) -> None:
        """Has steps of Python call `code`."""
        self._code = code

    async def asked(self, text: str) -> str:
        """`text` after the steps on input.

        Raises:
            BadRequest: if a step does not find what it must, or the version's own code refuses the text.
            UpstreamFailed: if that code takes too long or dies.
        """
        try:
            return await self._through(self._input, text)
        except UpstreamFailed as error:
            if error.code != "processing_failed":
                raise
            raise BadRequest(error.message, code=error.code, param="messages") from None

    async def chats(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """`messages` with the steps on input done to what users say."""
        return [
            {**one, "content": await self.asked(one["content"])}
            if one["role"] == "user" and isinstance(one.get("content"), str)
            else one
            for one in messages
        ]

    def answer(self) -> Chain | None:
        """The steps on output, for one answer, up to the first that calls the version's own code; None: there are none."""
        return Chain([make() for make in self._output]) if self._output else None

    async def complete(self, text: str) -> str:
        """A whole answer, as `answer` left it, after the steps from the first one on that calls the version's own code.

        Raises:
            UpstreamFailed: if a step does not find what it must, or the code fails.
        """
        return await self._through(self._rest, text)

    async def _through(self, parts: list[_Part], text: str) -> str:
        for part in parts:
            if isinstance(part, Python):
                assert self._code is not None
                text = await self._code.call(part, text)
            else:
                text = Chain([make() for make in part]).whole(text)
        return text


def read_processor(data: bytes) -> Processor:
    """The processor of a version's `processing.json`.

    Raises:
        BadRequest: naming what is wrong with it by its path.
    """
    return Processor(read_processing(data))


def load_processor(data: bytes, where: str) -> Processor:
    """As `read_processor`, of a file that an engine finds in its folder.

    Raises:
        Damaged: if something is wrong with it.
    """
    try:
        return read_processor(data)
    except BadRequest as error:
        raise Damaged(f"{where}: {error.message}", param=where) from None


class _Make(Protocol):
    def __call__(self) -> Stage: ...


def _parts(steps: tuple[Step, ...], where: str) -> list[_Part]:
    parts: list[_Part] = []
    for index, step in enumerate(steps):
        if isinstance(step, Python):
            parts.append(step)
            continue
        make = _compiled(step, f"{where}.{index}")
        if parts and isinstance(parts[-1], list):
            parts[-1].append(make)
        else:
            parts.append([make])
    return parts


def _compiled(step: Trim | Replace | Extract | Json | Template, where: str) -> _Make:
    if isinstance(step, Trim):
        return lambda: _Trimming(start=step.side != "end", end=step.side != "start")
    if isinstance(step, Template):
        before, _, after = step.template.partition(PLACE)
        return lambda: _Framing(before, after)
    if isinstance(step, Json):
        return lambda: _Picking(step)
    pattern = compile_step(step)
    if isinstance(step, Extract):
        return lambda: _Extracting(pattern, step)
    try:
        tail = compile_pattern(ending(step.pattern, looks_ahead=True), _MAX_MEMORY)
    except BadRequest as error:
        path = f"processing.json.{where}.pattern"
        raise BadRequest(f"{path}: {error.message}", param=path, code="bad_processing") from None
    pieces = _pieces(step.to)
    certain = _FENCED.fullmatch(step.pattern) is not None
    return lambda: _Replacing(pattern, tail, pieces, certain=certain)


class _Trimming:
    __slots__ = ("_begun", "_end", "_held")

    def __init__(self, *, start: bool, end: bool) -> None:
        self._begun = not start
        self._end = end
        self._held = ""

    def feed(self, text: str) -> str:
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        if not self._end or not text:
            return text
        shown = text.rstrip()
        if not shown:
            self._held += text
            return ""
        held, self._held = self._held, text[len(shown) :]
        return held + shown

    def finish(self) -> str:
        return ""


class _Framing:
    __slots__ = ("_after", "_before")

    def __init__(self, before: str, after: str) -> None:
        self._before = before
        self._after = after

    def feed(self, text: str) -> str:
        before, self._before = self._before, ""
        return before + text

    def finish(self) -> str:
        before, self._before = self._before, ""
        return before + self._after


class _Replacing:
    """Leftmost matches, one after the other, replaced as soon as they are certain. Works on UTF-8, as RE2 does."""

    __slots__ = ("_certain", "_held", "_left", "_pattern", "_pieces", "_tail")

    def __init__(self, pattern: Any, tail: Any, pieces: list[str | int], *, certain: bool) -> None:
        self._certain = certain  # a match that begins where something may still begin is final all the same
        self._pattern = pattern
        self._tail = tail
        self._pieces = pieces
        self._held = b""  # context of at most one character, then what is held back
        self._left = 0

    def feed(self, text: str) -> str:
        return self._run(self._held + text.encode("utf-8", "surrogatepass"), final=False)

    def finish(self) -> str:
        return self._run(self._held, final=True)

    def _run(self, text: bytes, *, final: bool) -> str:
        shown: list[bytes] = []
        at = self._left
        while True:
            found = self._pattern.search(text, at)
            safe = len(text)
            if not final and (pending := self._tail.search(text, at)) is not None:
                safe = pending.start()
            if found is None or safe < found.start() or (safe == found.start() and not self._certain):
                shown.append(text[at:safe])
                break
            shown += (text[at : found.start()], self._filled(found))
            at = found.end()
        first = max(0, safe - 1)
        while first > 0 and text[first] & 0xC0 == 0x80:
            first -= 1
        self._held = text[first:]
        self._left = safe - first
        return b"".join(shown).decode("utf-8", "surrogatepass")

    def _filled(self, found: Any) -> bytes:
        return b"".join(
            piece.encode() if isinstance(piece, str) else (found.group(piece) or b"") for piece in self._pieces
        )


class _Whole:
    """A stage that needs all of the text: it holds it until the end."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[str] = []

    def feed(self, text: str) -> str:
        self._parts.append(text)
        return ""

    def _text(self) -> str:
        return "".join(self._parts)


class _Extracting(_Whole):
    __slots__ = ("_pattern", "_step")

    def __init__(self, pattern: Any, step: Extract) -> None:
        super().__init__()
        self._pattern = pattern
        self._step = step

    def finish(self) -> str:
        text = self._text()
        found = self._pattern.search(text.encode("utf-8", "surrogatepass"))
        if found is None:
            return _without(text, self._step, f"a match of {self._step.pattern[:80]!r}")
        return (found.group(self._step.group) or b"").decode("utf-8", "surrogatepass")


class _Picking(_Whole):
    __slots__ = ("_step",)

    def __init__(self, step: Json) -> None:
        super().__init__()
        self._step = step

    def finish(self) -> str:
        text = self._text()
        value = _json_in(text)
        for part in self._step.path.split(".") if self._step.path else ():
            value = _inside(value, part)
        if value is None:
            return _without(text, self._step, f"JSON with {self._step.path!r}" if self._step.path else "JSON")
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _json_in(text: str) -> Any:
    """The first JSON object or list that stands in `text`; None if there is none."""
    decoder = json.JSONDecoder()
    at, tries = 0, 0
    while tries < _MOST_STARTS:
        starts = [place for place in (text.find("{", at), text.find("[", at)) if place >= 0]
        if not starts:
            return None
        at = min(starts)
        try:
            return decoder.raw_decode(text, at)[0]
        except (ValueError, RecursionError):
            at += 1
            tries += 1
    return None


def _inside(value: Any, part: str) -> Any:
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
        return value[int(part)]
    return None


def _without(text: str, step: Extract | Json, what: str) -> str:
    if step.otherwise == "fail":
        raise UpstreamFailed(
            f"The text has not what the version's processing asks for: {what}.", code="processing_failed"
        )
    return text if step.otherwise == "keep" else ""


def _pieces(to: str) -> list[str | int]:
    r"""A replacement as texts and numbers of groups; a backslash before what is no digit stands for that character."""
    pieces: list[str | int] = []
    literal = ""
    at = 0
    while at < len(to):
        if to[at] == "\\" and at + 1 < len(to):
            at += 1
            if to[at].isdecimal() and to[at].isascii():
                pieces += (literal, int(to[at]))
                literal = ""
            else:
                literal += to[at]
        else:
            literal += to[at]
        at += 1
    return [*pieces, literal]
