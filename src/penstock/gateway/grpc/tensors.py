"""Tensors of the Open Inference Protocol as lists of Python values, and back."""

import struct
from collections.abc import Sequence

from penstock.core.errors import BadRequest
from penstock.gateway.grpc.inference_pb2 import InferParameter, InferTensorContents, ModelInferRequest

Scalar = bool | int | float | str
# A datatype's field in `InferTensorContents`, and one element's format in raw bytes (struct, little-endian).
_FIELDS = {
    "BOOL": ("bool_contents", "?"),
    "INT8": ("int_contents", "b"),
    "INT16": ("int_contents", "h"),
    "INT32": ("int_contents", "i"),
    "INT64": ("int64_contents", "q"),
    "UINT8": ("uint_contents", "B"),
    "UINT16": ("uint_contents", "H"),
    "UINT32": ("uint_contents", "I"),
    "UINT64": ("uint64_contents", "Q"),
    "FP16": ("", "e"),
    "FP32": ("fp32_contents", "f"),
    "FP64": ("fp64_contents", "d"),
    "BYTES": ("bytes_contents", ""),
}


def read_tensors(request: ModelInferRequest) -> dict[str, list[Scalar]]:
    """The inputs by name; BYTES as text.

    Raises:
        BadRequest: if one is given twice, is of a datatype that is not known, or does not hold what its shape says; `param` names it.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise BadRequest(
            f"There are {len(request.inputs)} inputs and {len(raw)} raw contents.", param="raw_input_contents"
        )
    found: dict[str, list[Scalar]] = {}
    for index, tensor in enumerate(request.inputs):
        name = tensor.name
        if name in found:
            raise BadRequest(f"The input {name!r} is given twice.", param=name)
        if tensor.datatype not in _FIELDS:
            raise BadRequest(f"The datatype {tensor.datatype!r} of the input {name!r} is not known.", param=name)
        elements = _unpacked(name, tensor.datatype, raw[index]) if raw else _contents(name, tensor)
        size = 1
        for length in tensor.shape:
            size *= length
        if len(elements) != size:
            raise BadRequest(f"The input {name!r} holds {len(elements)} elements; its shape says {size}.", param=name)
        found[name] = [_text(name, one) if isinstance(one, bytes) else one for one in elements]
    return found


def _contents(name: str, tensor: ModelInferRequest.InferInputTensor) -> Sequence[bool | int | float | bytes]:
    field = _FIELDS[tensor.datatype][0]
    if not field:
        raise BadRequest(f"The input {name!r} of {tensor.datatype} must be sent raw.", param=name)
    elements: Sequence[bool | int | float | bytes] = getattr(tensor.contents, field)
    return elements


def _unpacked(name: str, datatype: str, raw: bytes) -> Sequence[bool | int | float | bytes]:
    code = _FIELDS[datatype][1]
    if code:
        count, rest = divmod(len(raw), struct.calcsize(code))
        if rest:
            raise BadRequest(f"The raw contents of the input {name!r} are no {datatype}.", param=name)
        return struct.unpack(f"<{count}{code}", raw)
    found: list[bytes] = []
    at = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if at + 4 > len(raw) or end > len(raw):
            raise BadRequest(f"The raw contents of the input {name!r} end within an element.", param=name)
        found.append(raw[at + 4 : end])
        at = end
    return found


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"The input {name!r} is not UTF-8: byte {error.start} is wrong.", param=name) from None


def packed_texts(texts: Sequence[str]) -> bytes:
    """A tensor of BYTES, raw."""
    return b"".join(len(data).to_bytes(4, "little") + data for data in (text.encode() for text in texts))


def text_contents(texts: Sequence[str]) -> InferTensorContents:
    """A tensor of BYTES, in the field of its datatype."""
    return InferTensorContents(bytes_contents=[text.encode() for text in texts])


def read_parameter(name: str, parameter: InferParameter) -> Scalar:
    """A parameter's value.

    Raises:
        BadRequest: if it has none.
    """
    kind = parameter.WhichOneof("parameter_choice")
    if kind is None:
        raise BadRequest(f"The parameter {name!r} has no value.", param=name)
    value: Scalar = getattr(parameter, kind)
    return value


def write_parameter(value: Scalar) -> InferParameter:
    """`value` as a parameter."""
    if isinstance(value, bool):
        return InferParameter(bool_param=value)
    if isinstance(value, int):
        return InferParameter(int64_param=value)
    if isinstance(value, float):
        return InferParameter(double_param=value)
    return InferParameter(string_param=value)
