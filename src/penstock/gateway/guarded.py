"""The content rules on what an engine answers: whole answers, and streams delta by delta with the smallest hold-back."""

from typing import Any, Final

import msgspec

from penstock.core.exchange import Finding
from penstock.gateway.screen import merged
from penstock.guard.policies import Guard
from penstock.guard.rules import Screened
from penstock.guard.stream import Emission, OutputScanner
from penstock.wire.delta import PlainDelta, plain_delta
from penstock.wire.sse import encode_event

_TEXTS = ("content", "reasoning_content", "refusal")  # of a message or delta; completions have `text`
_FIRST: Final = (0, "content")
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


class GuardedAnswer:
    """Screens one answer. After a rule has blocked, `blocked` is set and nothing more of it may go out.

    Log-probabilities are taken out: they would tell the tokens that are masked or held back.
    """

    def __init__(self, guard: Guard) -> None:
        self.findings: tuple[Finding, ...] = ()
        self.blocked = False
        self._guard = guard
        self._scanners: dict[tuple[int, str], OutputScanner] = {}
        self._begins = b""  # an event of plain text, up to the text
        self._ends = b""  # and after it
        self._latest: dict[str, Any] = {}  # the event that was read last

    def whole(self, body: bytes) -> bytes:
        """A JSON answer, screened. A blocked choice ends where the rule struck, with the finish reason `content_filter`.

        Raises:
            ValueError: if it is no JSON object.
        """
        document = _decode(body)
        for choice in _choices(document):
            holder = choice["message"] if isinstance(choice.get("message"), dict) else choice
            if choice.get("logprobs") is not None:
                choice["logprobs"] = None
            for name in (*_TEXTS, "text"):
                if isinstance(holder.get(name), str):
                    screened = self._guard.scan_output(holder[name])
                    holder[name] = self._take(screened)
                    if screened.blocked is not None:
                        choice["finish_reason"] = "content_filter"
        return _encode(document)

    def alike(self, event: bytes) -> bytes | None:
        """One event that is written as the last one of plain text was, but for its text: the event to send, or b"" if all of it is held back.

        None if it is of any other kind, or a rule may have found something: `event` has to look.
        """
        begins, ends = self._begins, self._ends
        if not begins or len(event) < len(begins) + len(ends):
            return None
        if not event.startswith(begins) or not event.endswith(ends):
            return None
        text = event[len(begins) : len(event) - len(ends)]
        if text.find(b'"') >= 0 or text.find(b"\\") >= 0 or not text.isascii() or not text.decode().isprintable():
            return None  # it does not stand there as it is meant
        shown = self._scanners[_FIRST].pass_through(text)
        if shown is text:
            return event
        if not shown:
            return shown
        return b"%b%b%b" % (begins, _encode(shown.decode())[1:-1], ends)

    def event(self, payload: bytes) -> bytes:
        """One event of a stream, screened: the event to send, or b"" if all of it is held back.

        Raises:
            ValueError: if `payload` is no JSON object.
        """
        plain = plain_delta(payload)
        if plain is not None:
            return self._plain(payload, plain)
        document = _decode(payload)
        choices = _choices(document)
        if not choices:
            return encode_event(payload)
        self._latest = document
        said = False
        for position, choice in enumerate(choices):
            index = choice.get("index", position)
            found = choice.get("delta")
            delta: dict[str, Any] = found if isinstance(found, dict) else choice
            last = choice.get("finish_reason") is not None
            had = any(delta.get(name) for name in (*_TEXTS, "text"))
            self._screen(index if isinstance(index, int) else position, choice, delta, last=last)
            if self.blocked:
                choice["finish_reason"] = "content_filter"
                return encode_event(_encode(document))
            has = any(delta.get(name) for name in (*_TEXTS, "text"))
            other = any(value for name, value in delta.items() if name not in {*_TEXTS, "text", "index", "logprobs"})
            said = said or has or last or (not had) or (other and delta is not choice)
        return encode_event(_encode(document)) if said else b""

    def rest(self) -> bytes:
        """The stream ended without telling so of every choice: events with what is held back, b"" if that is nothing."""
        out: list[bytes] = []
        for (index, name), scanner in self._scanners.items():
            emission = scanner.finish()
            struck = emission.blocked is not None
            said = {name: self._take(emission)}
            if not (said[name] or struck):
                continue
            reason: str | None = "content_filter" if struck else None
            choice: dict[str, Any] = {"index": index, "finish_reason": reason}
            choice |= said if name == "text" else {"delta": said}
            out.append(encode_event(_encode({**self._latest, "choices": [choice]})))
            if struck:
                break
        self._scanners.clear()
        self._begins = b""
        return b"".join(out)

    def _plain(self, payload: bytes, plain: PlainDelta) -> bytes:
        """An event that is nothing but a piece of text: what may be shown of it stands in its place."""
        text, begin, end = plain
        scanner = self._scanners.get(_FIRST)
        if scanner is None:
            scanner = self._guard.stream()
            if scanner is None:
                return encode_event(payload)
            self._scanners[_FIRST] = scanner
        screened = scanner.feed(text)
        shown = self._take(screened)
        if not self._begins:
            self._latest = _decode(payload)
        self._begins = b"data: " + payload[: begin + 1]
        self._ends = payload[end - 1 :] + b"\n\n"
        if self.blocked:
            document = _decode(payload)
            choice = document["choices"][0]
            choice["delta"]["content"] = shown
            choice["finish_reason"] = "content_filter"
            return encode_event(_encode(document))
        if not shown:
            return b""
        if shown != text:
            payload = payload[:begin] + _encode(shown) + payload[end:]
        return b"data: %b\n\n" % payload

    def _screen(self, index: int, choice: dict[str, Any], holder: dict[str, Any], *, last: bool) -> None:
        if choice.get("logprobs") is not None:
            choice["logprobs"] = None
        for name in (*_TEXTS, "text"):
            if self.blocked:
                holder[name] = ""
                continue
            text = holder.get(name)
            scanner = self._scanners.get((index, name))
            if isinstance(text, str) and text:
                if scanner is None:
                    scanner = self._guard.stream()
                    if scanner is None:
                        return
                    self._scanners[index, name] = scanner
                holder[name] = self._take(scanner.feed(text))
            if last and scanner is not None and not self.blocked:
                rest = self._take(scanner.finish())
                holder[name] = (holder.get(name) or "") + rest
                del self._scanners[index, name]
                self._begins = b""

    def _take(self, screened: Screened | Emission) -> str:
        if screened.findings:
            self.findings = merged(self.findings, screened.findings)
        if screened.blocked is not None:
            self.blocked = True
        return screened.text


def _choices(document: dict[str, Any]) -> list[dict[str, Any]]:
    choices = document.get("choices")
    if not isinstance(choices, list):
        return []
    return [choice for choice in choices if isinstance(choice, dict)]
