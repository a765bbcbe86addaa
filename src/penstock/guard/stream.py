"""Rules on a stream: text is released as soon as no rule could still make something of it, and no later."""

from typing import NamedTuple

from penstock.core.exchange import Finding
from penstock.guard.rules import Scanner

MAX_HELD_BYTES = 16384


class Emission(NamedTuple):
    """What may go to the client now.

    `text` may be empty while a rule could still match; `findings` are those of this emission alone; after `blocked` (a rule's name)
    nothing more comes.
    """

    text: str
    findings: tuple[Finding, ...] = ()
    blocked: str | None = None


_NOTHING = Emission("")


class OutputScanner:
    """One stream under a policy's output rules.

    Whatever the pieces, the emitted texts and findings together are those of the whole text scanned at once, as long as no match is longer
    than `MAX_HELD_BYTES`: what has been held so long is let go.
    """

    __slots__ = ("_blocked", "_held", "_left", "_scanner")

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._held = b""  # the last character released, as context, then what is held back
        self._left = 0  # bytes of context
        self._blocked = False

    def feed(self, delta: str) -> Emission:
        """Take the next piece."""
        if self._blocked or not delta:
            return _NOTHING
        text = self._held + delta.encode("utf-8", "surrogatepass")
        left = self._left
        safe = self._scanner.quiet(text, left)
        if safe < 0:
            return self._advance(text, final=len(text) > MAX_HELD_BYTES)
        if len(text) - safe > MAX_HELD_BYTES:
            safe = len(text)
        if safe == left:
            self._held = text
            return _NOTHING
        self._keep(text, safe)
        return Emission(text[left:safe].decode("utf-8", "surrogatepass"))

    def pass_through(self, piece: bytes) -> bytes | None:
        """Take the next piece, in UTF-8, if that is all there is to it: what may go to the client now, b"" if all of it is held.

        None if a rule may have found something: nothing has been taken then, and `feed` has to look.
        """
        if self._blocked:
            return b""
        text = self._held + piece
        left = self._left
        safe = self._scanner.quiet(text, left)
        if safe < 0:
            return None
        if len(text) - safe > MAX_HELD_BYTES:
            safe = len(text)
        if safe == left:
            self._held = text
            return b""
        self._keep(text, safe)
        return piece if safe - left == len(piece) and safe == len(text) else text[left:safe]

    def finish(self) -> Emission:
        """The stream is over: release what is held."""
        if self._blocked or len(self._held) == self._left:
            return _NOTHING
        return self._advance(self._held, final=True)

    @property
    def holding(self) -> bool:
        """Whether text is held back now."""
        return len(self._held) > self._left

    def _advance(self, text: bytes, final: bool) -> Emission:
        left = self._left
        spans, safe = self._scanner.resolve(text, left, final)
        if safe == left:
            self._held = text
            return _NOTHING
        shown, findings, blocked = self._scanner.render(text, left, safe, spans)
        self._blocked = blocked is not None
        self._keep(text, safe)
        return Emission(shown.decode("utf-8", "surrogatepass"), findings, blocked)

    def _keep(self, text: bytes, safe: int) -> None:
        first = safe - 1
        while first > 0 and text[first] & 0xC0 == 0x80:
            first -= 1
        self._held = text[max(0, first) :]
        self._left = safe - max(0, first)
