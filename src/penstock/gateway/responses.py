"""`POST /v1/responses`: the request becomes a chat on its way in, the chat's answer a response on its way out; the steps between are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from penstock.net.reply import Headers, Reply
from penstock.wire.decoding import decode_chat
from penstock.wire.envelope import ChatEnvelope
from penstock.wire.responses import chat_body, decode_responses, param_of
from penstock.wire.responses_answer import Object, ResponseStream, response_head, whole_response
from penstock.wire.sse import EventSplitter

if TYPE_CHECKING:
    from penstock.gateway.call import Call

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


def translate(call: Call) -> ChatEnvelope:
    """Puts the chat that asks the same into `call.body`, and a reply that says its answer as a response into `call.reply`.

    Raises:
        BadRequest: if the request is malformed, or asks for what is not done; `param` names the field.
    """
    asked = decode_responses(call.body)
    body = chat_body(asked, call.body)
    envelope = decode_chat(body)
    head = response_head(asked, call.body, name=call.id.partition("_")[2], at=call.at)
    call.reply = ResponsesReply(call.reply, head)
    call.body = body
    return envelope


class ResponsesReply:
    """Takes a chat's answer, or the events of its stream, and gives them to the client's reply as a response.

    It stands where a `Reply` stands, and does what that does.
    """

    __slots__ = ("_events", "_head", "_inner", "_stream")

    def __init__(self, inner: Reply | ResponsesReply, head: Object) -> None:
        self._inner = inner
        self._head = head
        self._events = EventSplitter()
        self._stream = ResponseStream(head)

    @property
    def started(self) -> bool:
        """As of the client's reply."""
        return self._inner.started

    @property
    def finished(self) -> bool:
        """As of the client's reply."""
        return self._inner.finished

    @property
    def gone(self) -> bool:
        """As of the client's reply."""
        return self._inner.gone

    @property
    def blocked(self) -> bool:
        """As of the client's reply."""
        return self._inner.blocked

    def promise(self) -> None:
        """As of the client's reply."""
        self._inner.promise()

    def shielded(self) -> None:
        """As of the client's reply."""
        self._inner.shielded()

    def send(self, status: int, headers: Headers, body: bytes, lines: bytes = b"") -> None:
        """A whole chat as a whole response; of an error, the field's name as the client knows it."""
        told = whole_response(self._head, body) if status == 200 else _renamed(body)
        self._inner.send(status, headers, told, lines)

    def start(self, status: int, headers: Headers, lines: bytes = b"") -> None:
        """As of the client's reply."""
        self._inner.start(status, headers, lines)

    def write(self, data: bytes) -> None:
        """A piece of the chat's stream.

        Raises:
            ValueError: if it holds what is no event.
        """
        self._inner.write(self._stream.take(self._events.whole(data)))

    def pass_on(self, data: bytes, framed: bytes) -> bool:
        """As `write`; False when it is time to `drain`."""
        self.write(data)
        return not self.blocked

    async def drain(self) -> None:
        """As of the client's reply."""
        await self._inner.drain()

    def end(self, data: bytes = b"") -> None:
        """The end of the chat's stream."""
        self._inner.end(self._stream.take(self._events.whole(data)))

    def abort(self) -> None:
        """The stream is not whole; where `response.failed` has told so, the reply may end as HTTP says."""
        if self._stream.over:
            self._inner.end()
        else:
            self._inner.abort()


def _renamed(body: bytes) -> bytes:
    document = _decode(body)
    error = document.get("error")
    if isinstance(error, dict) and isinstance(error.get("param"), str):
        error["param"] = param_of(error["param"])
        return _encode(document)
    return body
