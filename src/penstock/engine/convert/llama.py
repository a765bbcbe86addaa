"""Llama's graph (Touvron et al. 2023, section 2.2): rotary positions in halves, grouped keys and values, RMS norm, SwiGLU."""

from typing import Any

import msgspec
import numpy as np
import openvino as ov
from openvino import opset13 as op

from penstock.core.errors import BadRequest
from penstock.engine.convert.compress import Precision
from penstock.engine.convert.parts import Decoder, ints, number
from penstock.engine.probe.llama import Config
from penstock.engine.probe.weights import Weights


def build_llama(config: dict[str, Any], weights: Weights, precision: Precision) -> ov.Model:
    """The graph of a model of the type `llama`.

    Raises:
        BadRequest: if it has what is not written here: scaled rotary positions, another activation.
        Damaged: if a tensor is missing.
    """
    shape = msgspec.convert(config, Config)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = str(rope.get("rope_type", rope.get("type", "default"))) if isinstance(rope, dict) else "unknown"
    if kind != "default" or shape.hidden_act != "silu":
        raise BadRequest(
            f"Llama with {'the activation ' + shape.hidden_act if kind == 'default' else 'rotary positions of the type ' + kind} has no graph here.",
            code="unsupported_model",
        )
    theta = float(rope.get("rope_theta", shape.rope_theta))
    heads = shape.num_attention_heads
    kv_heads = shape.num_key_value_heads or heads
    width = shape.head_dim or shape.hidden_size // heads
    graph = Decoder(weights, precision)
    table = graph.table("model.embed_tokens.weight")
    hidden = graph.look_up(table, graph.tokens)
    cos, sin = _angles(graph.positions, theta, width)
    for layer in range(shape.num_hidden_layers):
        name = f"model.layers.{layer}"
        normed = _norm(graph, hidden, f"{name}.input_layernorm.weight", shape.rms_norm_eps)
        query = graph.split_heads(graph.project(normed, f"{name}.self_attn.q_proj"), heads, width)
        key = graph.split_heads(graph.project(normed, f"{name}.self_attn.k_proj"), kv_heads, width)
        value = graph.split_heads(graph.project(normed, f"{name}.self_attn.v_proj"), kv_heads, width)
        mixed = graph.attend(
            layer,
            _rotated(query, cos, sin, width),
            _rotated(key, cos, sin, width),
            value,
            heads=heads,
            kv_heads=kv_heads,
            width=width,
        )
        hidden = op.add(hidden, graph.project(mixed, f"{name}.self_attn.o_proj"))
        normed = _norm(graph, hidden, f"{name}.post_attention_layernorm.weight", shape.rms_norm_eps)
        gate = op.swish(graph.project(normed, f"{name}.mlp.gate_proj"))
        wide = op.multiply(gate, graph.project(normed, f"{name}.mlp.up_proj"))
        hidden = op.add(hidden, graph.project(wide, f"{name}.mlp.down_proj"))
    hidden = _norm(graph, hidden, "model.norm.weight", shape.rms_norm_eps)
    tied = shape.tie_word_embeddings or not graph.has("lm_head.weight")
    return graph.finish(hidden, table if tied else graph.table("lm_head.weight"), "llama")


def _norm(graph: Decoder, hidden: Any, name: str, epsilon: float) -> Any:
    mean = op.reduce_mean(op.power(hidden, number(2.0)), ints(-1), True)
    scale = op.divide(number(1.0), op.sqrt(op.add(mean, number(epsilon))))
    return op.multiply(graph.vector(name), op.multiply(hidden, scale))


def _angles(positions: Any, theta: float, width: int) -> tuple[Any, Any]:
    rates = theta ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    column = op.constant(rates.astype(np.float32).reshape(1, -1, 1))
    places = op.convert(op.unsqueeze(positions, ints(1)), "f32")
    angles = op.transpose(op.matmul(column, places, False, False), ints(0, 2, 1))
    both = op.concat([angles, angles], -1)
    return op.unsqueeze(op.cos(both), ints(1)), op.unsqueeze(op.sin(both), ints(1))


def _rotated(vectors: Any, cos: Any, sin: Any, width: int) -> Any:
    half = width // 2
    upper = op.slice(vectors, ints(half), ints(width), ints(1), ints(3))
    lower = op.slice(vectors, ints(0), ints(half), ints(1), ints(3))
    turned = op.concat([op.multiply(upper, number(-1.0)), lower], -1)
    return op.add(op.multiply(vectors, cos), op.multiply(turned, sin))
