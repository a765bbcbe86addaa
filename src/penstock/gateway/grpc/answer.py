"""From an answer of the OpenAI API to a response of inference: whole, or one of a stream's pieces."""

from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.gateway.grpc.ask import Question
from penstock.gateway.grpc.inference_pb2 import ModelInferResponse, ModelStreamInferResponse
from penstock.gateway.grpc.status import Failure
from penstock.gateway.grpc.tensors import Scalar, packed_texts, text_contents, write_parameter

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def whole_answer(question: Question, headers: Mapping[bytes, bytes], body: bytes) -> ModelInferResponse:
    """The response that tells a whole answer, its choices in their order, its usage in the parameters.

    Raises:
        ValueError: if `body` is no JSON object.
    """
    document = _decode(body)
    choices = sorted(_choices(document), key=_index)
    texts = [_said(choice) for choice in choices]
    reasons = [_reason(choice) for choice in choices]
    response = _response(question, headers, texts, reasons, body)
    _tell(response, {"request_id": _request_id(headers), **_usage(document)})
    return response


def piece_of_answer(
    question: Question, headers: Mapping[bytes, bytes], payload: bytes
) -> ModelStreamInferResponse | None:
    """The response for one event of a stream; None if there is nothing to tell of it.

    Raises:
        ValueError: if `payload` is no JSON object.
    """
    document = _decode(payload)
    choices = _choices(document)
    texts = [_said(choice) for choice in choices]
    reasons = [_reason(choice) for choice in choices]
    if not choices or not (any(texts) or any(reasons) or "response" in question.outputs):
        return None
    response = _response(question, headers, texts, reasons, payload)
    if index := _index(choices[0]):
        _tell(response, {"index": index})
    return ModelStreamInferResponse(infer_response=response)


def usage_of_piece(payload: bytes) -> dict[str, Scalar]:
    """The usage that an event of a stream tells, if it tells one.

    Raises:
        ValueError: if `payload` is no JSON object.
    """
    return _usage(_decode(payload)) if b'"usage"' in payload else {}


def last_of_answer(
    question: Question, headers: Mapping[bytes, bytes], usage: Mapping[str, Scalar]
) -> ModelStreamInferResponse:
    """What ends the answer to one question of a stream: no outputs, and the mark that Triton's clients look for."""
    response = ModelInferResponse(model_name=question.model, model_version=_version(headers), id=question.id)
    _tell(response, {"triton_final_response": True, "request_id": _request_id(headers), **usage})
    return ModelStreamInferResponse(infer_response=response)


def failed_answer(identity: str, failure: Failure) -> ModelStreamInferResponse:
    """How a question fails within a stream, which goes on with the next one."""
    response = ModelInferResponse(id=identity)
    told: dict[str, Scalar] = {
        "triton_final_response": True,
        "error_code": failure.code,
        "http_status": failure.http_status,
    }
    if failure.param:
        told["error_param"] = failure.param
    if failure.retry_after is not None:
        told["retry_after"] = failure.retry_after
    _tell(response, told)
    return ModelStreamInferResponse(error_message=failure.message, infer_response=response)


def error_of(payload: bytes) -> Any:
    """What an event of a stream tells of an error; None if it tells none.

    Raises:
        ValueError: if `payload` is no JSON object.
    """
    return _decode(payload).get("error") if b'"error"' in payload else None


def _response(
    question: Question, headers: Mapping[bytes, bytes], texts: list[str], reasons: list[str], body: bytes
) -> ModelInferResponse:
    response = ModelInferResponse(model_name=question.model, model_version=_version(headers), id=question.id)
    outputs = {"text_output": texts, "finish_reason": reasons, "response": [body.decode()]}
    for name in question.outputs:
        values = outputs[name]
        tensor = response.outputs.add(name=name, datatype="BYTES", shape=[len(values)])
        if question.raw:
            response.raw_output_contents.append(packed_texts(values))
        else:
            tensor.contents.CopyFrom(text_contents(values))
    return response


def _tell(response: ModelInferResponse, parameters: Mapping[str, Scalar]) -> None:
    for name, value in parameters.items():
        response.parameters[name].CopyFrom(write_parameter(value))


def _usage(document: dict[str, Any]) -> dict[str, Scalar]:
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return {}
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {name: usage[name] for name in names if isinstance(usage.get(name), int)}


def _choices(document: dict[str, Any]) -> list[dict[str, Any]]:
    choices = document.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _index(choice: dict[str, Any]) -> int:
    index = choice.get("index", 0)
    return index if isinstance(index, int) else 0


def _said(choice: dict[str, Any]) -> str:
    holder = choice.get("message") or choice.get("delta") or choice
    text = holder.get("content", holder.get("text")) if isinstance(holder, dict) else None
    return text if isinstance(text, str) else ""


def _reason(choice: dict[str, Any]) -> str:
    reason = choice.get("finish_reason")
    return reason if isinstance(reason, str) else ""


def _version(headers: Mapping[bytes, bytes]) -> str:
    return headers.get(b"x-penstock-version", b"").decode("latin-1")


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    return headers.get(b"x-penstock-request-id", b"").decode("latin-1")
