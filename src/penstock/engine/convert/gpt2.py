"""GPT-2's graph (Radford et al. 2019, section 2.3): learned positions, layer norm before each part, one projection for query, key and value, GELU."""

from typing import Any

import msgspec
import openvino as ov
from openvino import opset13 as op

from penstock.core.errors import BadRequest
from penstock.engine.convert.compress import Precision
from penstock.engine.convert.parts import Decoder, ints
from penstock.engine.probe.weights import Weights

_GELU = {"gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu": "erf"}


class Config(msgspec.Struct, frozen=True):
    """What config.json tells of the shape."""

    n_embd: int
    n_layer: int
    n_head: int
    layer_norm_epsilon: float = 1e-5
    activation_function: str = "gelu_new"
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True


def build_gpt2(config: dict[str, Any], weights: Weights, precision: Precision) -> ov.Model:
    """The graph of a model of the type `gpt2`, whether its tensors' names begin with `transformer.` or not.

    Raises:
        BadRequest: if it has what is not written here: another activation, other scales of attention.
        Damaged: if a tensor is missing.
    """
    shape = msgspec.convert(config, Config)
    gelu = _GELU.get(shape.activation_function)
    if gelu is None or not shape.scale_attn_weights or shape.scale_attn_by_inverse_layer_idx:
        raise BadRequest(
            f"GPT-2 with the activation {shape.activation_function} or scales of attention other than the width's root has no graph here.",
            code="unsupported_model",
        )
    start = "transformer." if "transformer.wte.weight" in weights else ""
    width = shape.n_embd // shape.n_head
    graph = Decoder(weights, precision)
    table = graph.table(f"{start}wte.weight")
    hidden = op.add(
        graph.look_up(table, graph.tokens), graph.look_up(graph.table(f"{start}wpe.weight"), graph.positions)
    )
    for layer in range(shape.n_layer):
        name = f"{start}h.{layer}"
        normed = _norm(graph, hidden, f"{name}.ln_1", shape.layer_norm_epsilon)
        joined = graph.project(normed, f"{name}.attn.c_attn", transposed=True)
        parts = op.split(joined, op.constant(2), 3)
        query, key, value = (graph.split_heads(parts.output(i), shape.n_head, width) for i in range(3))
        mixed = graph.attend(layer, query, key, value, heads=shape.n_head, kv_heads=shape.n_head, width=width)
        hidden = op.add(hidden, graph.project(mixed, f"{name}.attn.c_proj", transposed=True))
        normed = _norm(graph, hidden, f"{name}.ln_2", shape.layer_norm_epsilon)
        wide = op.gelu(graph.project(normed, f"{name}.mlp.c_fc", transposed=True), gelu)
        hidden = op.add(hidden, graph.project(wide, f"{name}.mlp.c_proj", transposed=True))
    hidden = _norm(graph, hidden, f"{start}ln_f", shape.layer_norm_epsilon)
    tied = shape.tie_word_embeddings or not graph.has("lm_head.weight")
    return graph.finish(hidden, table if tied else graph.table("lm_head.weight"), "gpt2")


def _norm(graph: Decoder, hidden: Any, name: str, epsilon: float) -> Any:
    even = op.mvn(hidden, ints(-1), True, epsilon, "inside_sqrt")
    return op.add(op.multiply(even, graph.vector(f"{name}.weight")), graph.vector(f"{name}.bias"))
