"""Step 1: the envelope, and nothing else, of the body."""

import time

from penstock.core.errors import BadRequest
from penstock.gateway.call import Call, Operation
from penstock.gateway.responses import translate
from penstock.wire.decoding import decode_chat, decode_completion, decode_embeddings
from penstock.wire.envelope import Envelope


def check_content_type(value: bytes | None) -> None:
    """Raises `BadRequest` unless `value` is JSON, or was not given."""
    if value is None or value == b"application/json":
        return
    kind = value.partition(b";")[0].strip().lower()
    if kind != b"application/json" and not kind.endswith(b"+json"):
        raise BadRequest(
            f"The content type {value.decode('latin-1')!r} is not understood: send application/json.",
            code="unsupported_content_type",
            param="content-type",
        )


def envelope_of(operation: Operation, body: bytes) -> Envelope:
    """The envelope of a body as it is sent to an engine.

    Raises:
        BadRequest: if the body is malformed; `param` names the field.
    """
    if operation == "completions":
        return decode_completion(body)
    if operation == "embeddings":
        return decode_embeddings(body)
    return decode_chat(body)


def decode(call: Call) -> None:
    """Reads the fields that the gateway acts on.

    Raises:
        BadRequest: if the body is malformed; `param` names the field.
    """
    headers = call.request.headers
    check_content_type(headers.get(b"content-type"))
    if call.operation == "chat":
        envelope: Envelope = decode_chat(call.body)
    elif call.operation == "responses":
        envelope = translate(call)
    else:
        envelope = envelope_of(call.operation, call.body)
    call.envelope = envelope
    call.stream = bool(envelope.stream)
    call.decoded_ns = time.monotonic_ns() - call.started_ns
