"""From a request for inference to the request of the OpenAI API that asks the same."""

from typing import Any

import msgspec

from penstock.core.errors import BadRequest
from penstock.gateway.grpc.inference_pb2 import ModelInferRequest
from penstock.gateway.grpc.tensors import Scalar, read_parameter, read_tensors

OUTPUTS = ("text_output", "finish_reason", "response")  # the last, the whole answer as JSON, only if it is asked for

_OWN = frozenset({"model", "messages", "prompt", "stream_options"})  # said by the request itself
_TRITON = frozenset({"triton_enable_empty_final_response"})  # a stream's last response is always marked
_encode = msgspec.json.Encoder().encode


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What to send to the gateway, and how the answer is wanted."""

    path: bytes
    body: bytes
    model: str
    id: str
    stream: bool
    raw: bool
    outputs: tuple[str, ...]


def read_question(request: ModelInferRequest, *, streams: bool) -> Question:
    """The question that `request` asks. With `streams` it is answered piece by piece, unless it says that it should not be.

    Raises:
        BadRequest: naming the tensor or parameter that is wrong.
    """
    if not request.model_name:
        raise BadRequest("The request names no model.", param="model_name")
    if request.model_version:
        raise BadRequest("The route decides which version answers: leave `model_version` empty.", param="model_version")
    outputs = tuple(output.name for output in request.outputs) or OUTPUTS[:2]
    for name in outputs:
        if name not in OUTPUTS:
            raise BadRequest(f"There is no output {name!r}; there are {', '.join(OUTPUTS)}.", param=name)
    tensors = read_tensors(request)
    fields: dict[str, Any] = {"model": request.model_name}
    messages, prompts = tensors.pop("messages", None), tensors.pop("text_input", None)
    if (messages is None) == (prompts is None):
        raise BadRequest("Send one of the inputs `messages` and `text_input`.", param="text_input")
    if messages is not None:
        fields["messages"] = _messages(messages)
    elif prompts is not None:
        fields["prompt"] = prompts[0] if len(prompts) == 1 else prompts
    fields.update(_parameters(request, tensors))
    stream = fields.pop("stream", streams)
    if stream and not streams:
        raise BadRequest("ModelInfer answers whole: a stream is had by ModelStreamInfer.", param="stream")
    if stream:
        fields["stream"] = True
        fields["stream_options"] = {"include_usage": True}
    return Question(
        path=b"/v1/chat/completions" if messages is not None else b"/v1/completions",
        body=_encode(fields),
        model=request.model_name,
        id=request.id,
        stream=bool(stream),
        raw=bool(request.raw_input_contents),
        outputs=outputs,
    )


def _messages(elements: list[Scalar]) -> list[Any]:
    """Each element is a message in JSON; or the only one is the list of them all."""
    messages = [_json("messages", element) for element in elements]
    if len(messages) == 1 and isinstance(messages[0], list):
        return messages[0]
    return messages


def _parameters(request: ModelInferRequest, tensors: dict[str, list[Scalar]]) -> dict[str, Any]:
    """The fields of the OpenAI request: from parameters, from tensors of one element, and from JSON in `sampling_parameters`."""
    fields: dict[str, Any] = {name: read_parameter(name, value) for name, value in request.parameters.items()}
    for name, elements in tensors.items():
        if len(elements) != 1:
            raise BadRequest(f"The input {name!r} must have one element.", param=name)
        fields[name] = elements[0]
    more = fields.pop("sampling_parameters", None)
    if more is not None:
        found = _json("sampling_parameters", more)
        if not isinstance(found, dict):
            raise BadRequest("The input `sampling_parameters` must be a JSON object.", param="sampling_parameters")
        fields.update(found)
    for name in _OWN & fields.keys():
        raise BadRequest(f"The parameter {name!r} is said by the request itself.", param=name)
    return {name: value for name, value in fields.items() if name not in _TRITON}


def _json(name: str, text: Scalar) -> Any:
    try:
        return msgspec.json.decode(text) if isinstance(text, str) else text
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The input {name!r} is not JSON: {error}.", param=name) from None
