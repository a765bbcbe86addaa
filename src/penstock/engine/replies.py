"""OpenAI's answers as bytes: whole documents, and the events of a stream, made by hand around what changes."""

from typing import Any

import msgspec

from penstock.core.engine_phases import EnginePhases
from penstock.core.exchange import Quality
from penstock.engine.sequence import Chosen, Sequence
from penstock.wire.phases import phases_line
from penstock.wire.quality import quality_line
from penstock.wire.resume import ids_line
from penstock.wire.sse import DONE

_encode = msgspec.json.Encoder().encode


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """One answer's head: what all its events have in common.

    Attributes:
        begun: the client has the stream's beginning from elsewhere.
        ended: and its end too, but for the usage.
    """

    chat: bool
    id: str
    created: int
    model: str
    logprobs: bool
    include_usage: bool
    begun: bool = False
    ended: bool = False

    def head(self, kind: str) -> bytes:
        """The document's beginning, up to its choices."""
        fields = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return _encode(fields)[:-1] + b',"choices":['


def usage(sequences: list[Sequence], prompts: int) -> dict[str, int]:
    """Tokens used: each of the `prompts` is counted once, however many choices it has."""
    step = len(sequences) // prompts
    prompt = sum(len(sequence.prompt) for sequence in sequences[::step])
    completion = sum(sequence.completion for sequence in sequences)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def document(form: Form, sequences: list[Sequence], prompts: int) -> bytes:
    """The whole answer."""
    choices = []
    for sequence in sequences:
        text, chosen = sequence.take()
        said: dict[str, Any] = {"index": sequence.index}
        if form.chat:
            said["message"] = {"role": "assistant", "content": text, "refusal": None}
        else:
            said["text"] = text
        said["logprobs"] = _logprobs(form, chosen)
        said["finish_reason"] = sequence.finish
        choices.append(_encode(said))
    head = form.head("chat.completion" if form.chat else "text_completion")
    return head + b",".join(choices) + b'],"usage":' + _encode(usage(sequences, prompts)) + b"}"


class EventWriter:
    """The events of one stream. The bytes around an event's text are made once."""

    __slots__ = ("_after", "_before", "_end", "_form", "_head", "_met")

    def __init__(self, form: Form) -> None:
        self._form = form
        self._head = b"data: " + form.head("chat.completion.chunk" if form.chat else "text_completion")
        self._end = b'],"usage":null}\n\n' if form.include_usage else b"]}\n\n"
        self._before: dict[int, bytes] = {}
        self._after = b',"finish_reason":null}' + self._end
        self._met: set[int] = set()

    def text(self, sequence: Sequence) -> bytes:
        """The events that tell what has come of `sequence` since the last time, its end included."""
        index = sequence.index
        text, chosen = sequence.take()
        first = b""
        if index not in self._met:
            self._met.add(index)
            first = self._begin(index)
        event = b""
        if text or chosen:
            logprobs = _encode(_logprobs(self._form, chosen)) if self._form.logprobs else b"null"
            close = b'},"logprobs":' if self._form.chat else b',"logprobs":'
            event = self._before[index] + _encode(text) + close + logprobs + self._after
        if sequence.finish and not self._form.ended:
            delta = b'"delta":{}' if self._form.chat else b'"text":""'
            event += b'%b{"index":%d,%b,"logprobs":null,"finish_reason":"%b"}%b' % (
                self._head, index, delta, sequence.finish.encode(), self._end,
            )  # fmt: skip
        if event and sequence.untold is not None:
            event = ids_line(sequence.sent, sequence.untold) + event
            sequence.untold = []
        return first + event

    def last(
        self,
        sequences: list[Sequence],
        prompts: int,
        quality: Quality | None = None,
        phases: EnginePhases | None = None,
    ) -> bytes:
        """How the stream ends: usage if it was asked for, with the answer's `quality` and `phases` if these are given, and `[DONE]`."""
        if not self._form.include_usage:
            return DONE
        told = phases_line(phases) if phases is not None else b""
        if quality is not None:
            told += quality_line(quality)
        return told + self._head + b'],"usage":' + _encode(usage(sequences, prompts)) + b"}\n\n" + DONE

    def _begin(self, index: int) -> bytes:
        if not self._form.chat:
            self._before[index] = self._head + b'{"index":%d,"text":' % index
            return b""
        self._before[index] = self._head + b'{"index":%d,"delta":{"content":' % index
        if self._form.begun:
            return b""
        role = b'{"role":"assistant","content":"","refusal":null}'
        return self._head + b'{"index":%d,"delta":%b,"logprobs":null' % (index, role) + self._after


def _logprobs(form: Form, chosen: list[Chosen]) -> dict[str, Any] | None:
    if not form.logprobs:
        return None
    if not form.chat:
        return {
            "tokens": [token.data.decode(errors="replace") for token in chosen],
            "token_logprobs": [token.logprob for token in chosen],
            "top_logprobs": None,
            "text_offset": [token.offset for token in chosen],
        }
    content = [
        {
            "token": token.data.decode(errors="replace"),
            "logprob": token.logprob,
            "bytes": list(token.data),
            "top_logprobs": [],
        }
        for token in chosen
    ]
    return {"content": content, "refusal": None}
