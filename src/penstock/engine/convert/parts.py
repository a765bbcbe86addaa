"""What decoders have in common, as operations of OpenVINO: inputs, projections, the cache of keys and values, attention, the ends of the graph.

The shape of it is the one that the pipeline's paged attention is recognised by: a state for keys and one for values in each layer, put in order by
`beam_idx`, the new ones appended, then one ScaledDotProductAttention.
"""

from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op
from openvino.op.util import Variable, VariableInfo

from penstock.engine.convert.compress import Precision, matrix, vector
from penstock.engine.probe.weights import Weights


def ints(*values: int) -> Any:
    """A constant list of whole numbers."""
    return op.constant(np.array(values, np.int64))


def number(value: float) -> Any:
    """A constant float32."""
    return op.constant(np.float32(value))


class Decoder:
    """The frame of one model's graph: what its layers are built between.

    Attributes:
        tokens, positions: inputs, batch x tokens.
        precision: of matrices within layers; embeddings and the head keep 8 bits where these have 4.
    """

    def __init__(self, weights: Weights, precision: Precision) -> None:
        self._weights = weights
        self.precision = precision
        self.tokens = self._input("input_ids", ov.Type.i64, [-1, -1])
        self._known = self._input("attention_mask", ov.Type.i64, [-1, -1])
        self.positions = self._input("position_ids", ov.Type.i64, [-1, -1])
        self._beams = self._input("beam_idx", ov.Type.i32, [-1])
        self._sinks: list[Any] = []
        self._mask = self._causal()

    @property
    def ends(self) -> Precision:
        """The precision of embeddings and of the head: rounding them to 4 bits would cost most of what is lost."""
        return "int8" if self.precision == "int4" else self.precision

    def has(self, name: str) -> bool:
        """Whether the weights hold the tensor."""
        return name in self._weights

    def table(self, name: str) -> Any:
        """The matrix `name` of embeddings."""
        return matrix(name, self._weights.get(name), self.ends)

    def look_up(self, table: Any, indices: Any) -> Any:
        """Rows of `table`."""
        return op.gather(table, op.convert(indices, "i32"), op.constant(np.int32(0)))

    def project(self, hidden: Any, name: str, *, transposed: bool = False) -> Any:
        """`hidden` through the linear layer `name`, with its bias if it has one. `transposed`: rows of the stored matrix are inputs."""
        weight = self._weights.get(f"{name}.weight")
        if transposed:
            weight = np.ascontiguousarray(weight.T)
        made = op.matmul(hidden, matrix(f"{name}.weight", weight, self.precision), False, True)
        if self.has(f"{name}.bias"):
            made = op.add(made, self.vector(f"{name}.bias"))
        return made

    def vector(self, name: str) -> Any:
        """The vector `name`, as it is added to or multiplied with hidden states."""
        values = self._weights.get(name)
        return vector(name, values, (1, 1, len(values)))

    def split_heads(self, hidden: Any, heads: int, width: int) -> Any:
        """Batch x tokens x all to batch x heads x tokens x width."""
        return op.transpose(op.reshape(hidden, ints(0, 0, heads, width), True), ints(0, 2, 1, 3))

    def attend(self, layer: int, query: Any, key: Any, value: Any, *, heads: int, kv_heads: int, width: int) -> Any:
        """Causal attention over all that the sequence has so far, heads joined again."""
        keys = self._grown(f"past_key_values.{layer}.key", f"present.{layer}.key", key, kv_heads, width)
        values = self._grown(f"past_key_values.{layer}.value", f"present.{layer}.value", value, kv_heads, width)
        if heads != kv_heads:
            keys, values = (self._shared(one, heads, kv_heads, width) for one in (keys, values))
        mixed = op.scaled_dot_product_attention(query, keys, values, self._mask, number(width**-0.5), False)
        return op.reshape(op.transpose(mixed, ints(0, 2, 1, 3)), ints(0, 0, heads * width), True)

    def finish(self, hidden: Any, head: Any, name: str) -> ov.Model:
        """The whole graph: logits for every token of the input."""
        logits = op.matmul(hidden, head, False, True)
        logits.output(0).get_tensor().set_names({"logits"})
        result = op.result(logits)
        return ov.Model([result], self._sinks, [self.tokens, self._known, self.positions, self._beams], name)

    def _input(self, name: str, kind: Any, shape: list[int]) -> Any:
        made = op.parameter(ov.PartialShape(shape), kind)
        made.set_friendly_name(name)
        made.output(0).get_tensor().set_names({name})
        return made

    def _causal(self) -> Any:
        """What a token may look at, to be added to its scores: itself and what came before, and no padding."""
        zero, one = op.constant(np.int64(0)), op.constant(np.int64(1))
        fresh = op.gather(op.shape_of(self.tokens), one, zero)
        whole = op.gather(op.shape_of(self._known), one, zero)
        rows = op.unsqueeze(op.range(op.subtract(whole, fresh), whole, one, "i64"), ints(1))
        columns = op.unsqueeze(op.range(zero, whole, one, "i64"), ints(0))
        before = op.unsqueeze(op.less_equal(columns, rows), ints(0, 1))
        there = op.unsqueeze(op.not_equal(self._known, zero), ints(1, 2))
        return op.select(op.logical_and(before, there), number(0.0), number(float(np.finfo(np.float32).min)))

    def _grown(self, past: str, present: str, fresh: Any, heads: int, width: int) -> Any:
        """The state `past` with `fresh` appended; kept as the state of the next step."""
        shape = ov.PartialShape([-1, heads, -1, width])
        info = VariableInfo()
        info.data_shape, info.data_type, info.variable_id = shape, ov.Type.f32, past + present
        state = Variable(info)
        batch = op.gather(op.shape_of(self.tokens), ints(0), op.constant(np.int64(0)))
        empty = op.broadcast(number(0.0), op.concat([batch, ints(heads), ints(0), ints(width)], 0))
        read = op.read_value(empty, state)
        read.output(0).get_tensor().set_names({past})
        ordered = op.gather(read, self._beams, op.constant(np.int64(0)))
        grown = op.concat([ordered, fresh], -2)
        self._sinks.append(op.assign(grown, state))
        return grown

    def _shared(self, cache: Any, heads: int, kv_heads: int, width: int) -> Any:
        """Each head of `cache` as often as query heads look at it (Ainslie et al. 2023, grouped-query attention)."""
        apart = op.unsqueeze(cache, ints(2))
        repeated = op.broadcast(apart, ints(1, 1, heads // kv_heads, 1, 1), broadcast_spec="BIDIRECTIONAL")
        return op.reshape(repeated, ints(0, heads, -1, width), True)
