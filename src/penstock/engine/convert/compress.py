"""Weights in fewer bits, as constants of a graph: one scale a row for int8, one a group of a row for int4.

Asymmetric rounding, as Jacob et al. 2018 (Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, section 2.1)
describe it; the subgraph `(weight - zero point) * scale` is the one that the CPU plugin computes without unpacking the matrix.
"""

from typing import Any, Literal

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as op

from penstock.core.errors import BadRequest

Precision = Literal["fp32", "fp16", "int8", "int4"]
GROUP = 64  # weights that share a scale in int4
_GROUPS = (GROUP, 32, 16)  # the first that divides a row
_LARGEST_HALF = 65504.0


def matrix(name: str, weight: NDArray[np.float32], precision: Precision) -> Any:
    """The node of a matrix (rows are outputs) in `precision`, as float32 to whatever multiplies with it.

    A matrix whose rows no group divides is kept in int8 where int4 is asked for.

    Raises:
        BadRequest: if a number does not fit into half precision.
    """
    if precision == "int4":
        group = next((size for size in _GROUPS if weight.shape[1] % size == 0), 0)
        if group:
            return _int4(name, weight, group)
        precision = "int8"
    if precision == "int8":
        return _int8(name, weight)
    if precision == "fp16":
        return _half(name, weight)
    return _named(op.constant(weight), name)


def vector(name: str, values: NDArray[np.float32], shape: tuple[int, ...] | None = None) -> Any:
    """The node of a vector, in float32: of a model's bytes they are next to nothing."""
    return _named(op.constant(values.reshape(shape) if shape is not None else values), name)


def round_rows(weight: NDArray[np.float32], levels: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Each row of the last axis as whole numbers 0 to `levels`, with its scale (float16) and zero point: `(number - zero) * scale` is near the weight.

    Zero is always hit exactly. The scale is rounded to float16 first, so that what is stored is what the rounding was made for.
    """
    low = np.minimum(weight.min(axis=-1, keepdims=True), 0.0)
    high = np.maximum(weight.max(axis=-1, keepdims=True), 0.0)
    scale = np.maximum((high - low) / levels, np.finfo(np.float16).tiny).astype(np.float16)
    exact = scale.astype(np.float32)
    zero = np.clip(np.rint(-low / exact), 0, levels)
    numbers = np.clip(np.rint(weight / exact) + zero, 0, levels)
    return numbers.astype(np.uint8), scale, zero.astype(np.uint8)


def _int8(name: str, weight: NDArray[np.float32]) -> Any:
    numbers, scale, zero = round_rows(weight, 255)
    return _unpacked(name, op.constant(numbers), op.constant(zero), scale, None)


def _int4(name: str, weight: NDArray[np.float32], group: int) -> Any:
    rows, columns = weight.shape
    numbers, scale, zero = round_rows(weight.reshape(rows, columns // group, group), 15)
    return _unpacked(name, op.constant(numbers, ov.Type.u4), op.constant(zero, ov.Type.u4), scale, (rows, columns))


def _unpacked(name: str, numbers: Any, zero: Any, scale: NDArray[Any], shape: tuple[int, int] | None) -> Any:
    raw = op.convert(_named(numbers, name), "f16")
    shift = op.convert(_named(zero, f"{name}/zero"), "f16")
    made = op.multiply(op.subtract(raw, shift), _named(op.constant(scale), f"{name}/scale"))
    if shape is not None:
        made = op.reshape(made, op.constant(np.array(shape, np.int64)), False)
    return op.convert(made, "f32")


def _half(name: str, weight: NDArray[np.float32]) -> Any:
    if np.abs(weight).max(initial=0.0) > _LARGEST_HALF:
        raise BadRequest(
            f"{name} holds numbers beyond {_LARGEST_HALF:.0f}: it has no form in half precision.", param="precision"
        )
    return op.convert(_named(op.constant(weight.astype(np.float16)), name), "f32")


def _named(node: Any, name: str) -> Any:
    node.set_friendly_name(name)
    return node
