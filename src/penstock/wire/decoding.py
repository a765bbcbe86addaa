"""The body of an OpenAI request, read: its envelope, or what is wrong with it in words."""

import json
from typing import Any

import msgspec

from penstock.core.errors import BadRequest
from penstock.wire.envelope import ChatEnvelope, CompletionEnvelope, EmbeddingsEnvelope
from penstock.wire.members import plainly_distinct


class DuplicateKeyError(ValueError):
    """An object names a member twice: two readers may disagree about which counts."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DuplicateKeyError(key)
            seen.add(key)
    return members


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


_decoder: Any = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
_scan_once = _decoder.scan_once  # the scanner alone, in C


def check_members(body: bytes) -> None:
    """Raises `ValueError` if an object in `body`, which has been decoded and so is JSON, names a member twice."""
    if not plainly_distinct(body):
        text = body.decode()
        _scan_once(text, text.index("{"))


_decode_chat = msgspec.json.Decoder(ChatEnvelope).decode
_decode_completion = msgspec.json.Decoder(CompletionEnvelope).decode
_decode_embeddings = msgspec.json.Decoder(EmbeddingsEnvelope).decode


def decode_chat(body: bytes) -> ChatEnvelope:
    """The envelope of a chat completion's body.

    Raises:
        BadRequest: if it is not a JSON object in UTF-8, names a member twice, or a field has a wrong type or value; `param`
            names the field, as in `messages[0].role`.
    """
    try:
        envelope = _decode_chat(body)
        check_members(body)
    except (ValueError, RecursionError) as error:
        raise bad_body(body, error) from None
    for index, message in enumerate(envelope.messages):
        if message.content is None and message.role in {"user", "system", "developer", "tool"}:
            param = f"messages[{index}].content"
            raise BadRequest(f"A message of role {message.role!r} needs a content.", param=param)
    return envelope


def decode_completion(body: bytes) -> CompletionEnvelope:
    """The envelope of a text completion's body.

    Raises:
        BadRequest: as `decode_chat`.
    """
    try:
        envelope = _decode_completion(body)
        check_members(body)
    except (ValueError, RecursionError) as error:
        raise bad_body(body, error) from None
    if envelope.prompt is None:
        raise BadRequest("The field `prompt` is missing.", param="prompt")
    return envelope


def decode_embeddings(body: bytes) -> EmbeddingsEnvelope:
    """The envelope of a body that asks for embeddings.

    Raises:
        BadRequest: as `decode_chat`; also if the inputs are of several kinds.
    """
    try:
        envelope = _decode_embeddings(body)
        check_members(body)
    except (ValueError, RecursionError) as error:
        raise bad_body(body, error) from None
    if envelope.stream:
        raise BadRequest("Embeddings are not streamed.", param="stream")
    if isinstance(envelope.input, list) and len({type(one) for one in envelope.input}) > 1:
        raise BadRequest("The inputs must all be texts, or all be lists of tokens.", param="input")
    return envelope


def bad_body(body: bytes, error: Exception) -> BadRequest:
    """What is wrong with `body`, for its author, given what a decoder said."""
    if not body:
        return BadRequest("The request has no body: send a JSON object.", code="invalid_json")
    if isinstance(error, RecursionError):
        return BadRequest("The JSON of the body is nested too deeply.", code="invalid_json")
    if isinstance(error, DuplicateKeyError):
        return BadRequest(f"The body names the member {error.key!r} twice.", code="duplicate_field", param=error.key)
    if isinstance(error, UnicodeDecodeError):
        return BadRequest(f"The body is not UTF-8: byte {error.start} is wrong.", code="invalid_json")
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return BadRequest(f"The body is not JSON: {text}.", code="invalid_json")
    problem, _, path = text.partition(" - at `$")
    path = path.rstrip("`").removeprefix(".")
    if problem.startswith("Object missing required field `"):
        field = problem.split("`")[1]
        path = f"{path}.{field}" if path else field
        return BadRequest(f"The field `{path}` is missing.", param=path, code="missing_required_parameter")
    if not path:
        return BadRequest(f"The body must be a JSON object: {problem}.", code="invalid_json")
    return BadRequest(f"The field `{path}` is wrong: {problem}.", param=path)
