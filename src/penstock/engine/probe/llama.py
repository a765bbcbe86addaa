"""A forward pass of Llama in numpy, float32: logits, and every attention distribution on the way.

Source: Touvron et al. 2023, section 2.2, as transformers' `LlamaForCausalLM` computes it: rotary positions in halves, grouped keys and
values, RMS norm, SwiGLU. Without a cache and without batches: it reads a text once.
"""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from penstock.core.errors import BadRequest, Damaged
from penstock.engine.probe.weights import Array, Weights

See = Callable[[int, Array], None]  # a layer's number, and its distributions: heads x queries x keys


class Config(msgspec.Struct, frozen=True):
    """What config.json tells of the shape."""

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    tie_word_embeddings: bool = False
    rope_scaling: object = None
    hidden_act: str = "silu"


class Llama:
    """The model in a folder of Hugging Face's layout."""

    def __init__(self, folder: Path) -> None:
        """Reads config.json; tensors are read as they are needed.

        Raises:
            BadRequest: if it is another kind of model.
            Damaged: if the folder cannot be read as a model.
        """
        try:
            self.config = config = msgspec.convert(json.loads((folder / "config.json").read_bytes()), Config)
        except (OSError, ValueError) as error:
            raise Damaged(f"{folder / 'config.json'} cannot be read: {error}.") from None
        scaling = config.rope_scaling
        plain = scaling is None or (isinstance(scaling, dict) and scaling.get("rope_type") == "default")
        if config.model_type != "llama" or not plain or config.hidden_act != "silu":
            raise BadRequest(
                f"The probe reads models of the type 'llama' with plain rotary positions; this one is {config.model_type!r}.",
                code="unsupported_model",
            )
        self._weights = Weights(folder)
        self._head = config.head_dim or config.hidden_size // config.num_attention_heads
        self._kv_heads = config.num_key_value_heads or config.num_attention_heads

    def forward(self, tokens: list[int], see: See | None = None) -> Array:
        """Logits, one row a token. `see` is shown each layer's attention as it comes.

        Raises:
            BadRequest: if there is no token, or one that the model does not have.
        """
        config, weights = self.config, self._weights
        if not tokens or not all(0 <= token < config.vocab_size for token in tokens):
            raise BadRequest(f"Tokens are 0 to {config.vocab_size - 1}, and at least one.", param="tokens")
        embedding = weights.get("model.embed_tokens.weight")
        hidden = embedding[tokens]
        cos, sin = self._positions(len(tokens))
        for layer in range(config.num_hidden_layers):
            name = f"model.layers.{layer}"
            normed = self._norm(hidden, f"{name}.input_layernorm.weight")
            mixed, attention = self._attend(normed, f"{name}.self_attn", cos, sin)
            if see is not None:
                see(layer, attention)
            hidden = hidden + mixed
            normed = self._norm(hidden, f"{name}.post_attention_layernorm.weight")
            gate = self._linear(normed, f"{name}.mlp.gate_proj")
            up = self._linear(normed, f"{name}.mlp.up_proj")
            hidden = hidden + self._linear(gate / (1 + np.exp(-gate)) * up, f"{name}.mlp.down_proj")
        hidden = self._norm(hidden, "model.norm.weight")
        tied = config.tie_word_embeddings or "lm_head.weight" not in weights
        return hidden @ (embedding if tied else weights.get("lm_head.weight")).T

    def _attend(self, hidden: Array, name: str, cos: Array, sin: Array) -> tuple[Array, Array]:
        heads, width, count = self.config.num_attention_heads, self._head, len(hidden)
        query = self._linear(hidden, f"{name}.q_proj").reshape(count, heads, width).transpose(1, 0, 2)
        key = self._linear(hidden, f"{name}.k_proj").reshape(count, self._kv_heads, width).transpose(1, 0, 2)
        value = self._linear(hidden, f"{name}.v_proj").reshape(count, self._kv_heads, width).transpose(1, 0, 2)
        query, key = _rotated(query, cos, sin), _rotated(key, cos, sin)
        shared = heads // self._kv_heads
        if shared > 1:
            key, value = np.repeat(key, shared, axis=0), np.repeat(value, shared, axis=0)
        scores = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(width))
        scores[:, np.triu(np.ones((count, count), bool), 1)] = -np.inf
        attention = np.exp(scores - scores.max(axis=2, keepdims=True))
        attention /= attention.sum(axis=2, keepdims=True)
        mixed = (attention @ value).transpose(1, 0, 2).reshape(count, heads * width)
        return self._linear(mixed, f"{name}.o_proj"), attention

    def _linear(self, hidden: Array, name: str) -> Array:
        made: Array = hidden @ self._weights.get(f"{name}.weight").T
        if f"{name}.bias" in self._weights:
            made += self._weights.get(f"{name}.bias")
        return made

    def _norm(self, hidden: Array, name: str) -> Array:
        scale = 1 / np.sqrt((hidden * hidden).mean(axis=-1, keepdims=True) + np.float32(self.config.rms_norm_eps))
        normed: Array = hidden * scale * self._weights.get(name)
        return normed

    def _positions(self, count: int) -> tuple[Array, Array]:
        rates = self.config.rope_theta ** (-np.arange(0, self._head, 2, dtype=np.float64) / self._head)
        angles = np.outer(np.arange(count), rates)
        both = np.concatenate((angles, angles), axis=1)
        return np.cos(both).astype(np.float32), np.sin(both).astype(np.float32)


def _rotated(vectors: Array, cos: Array, sin: Array) -> Array:
    half = vectors.shape[-1] // 2
    turned = np.concatenate((-vectors[..., half:], vectors[..., :half]), axis=-1)
    return vectors * cos + turned * sin
