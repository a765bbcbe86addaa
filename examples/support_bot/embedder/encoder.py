"""The embedder's network: a small BERT (Devlin et al. 2019) with mean pooling; parameters are named as Hugging Face names them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The shape, in Hugging Face's words."""

    vocab_size: int = 2048
    hidden_size: int = 192
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    intermediate_size: int = 512
    max_position_embeddings: int = 256
    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    pad_token_id: int = 0

    def to_dict(self) -> dict[str, Any]:
        """For config.json."""
        return {"architectures": ["BertModel"], "model_type": "bert", **asdict(self), "torch_dtype": "float32"}


class Encoder(nn.Module):
    """Token ids to unit vectors."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(config.vocab_size, size),
                "position_embeddings": nn.Embedding(config.max_position_embeddings, size),
                "token_type_embeddings": nn.Embedding(config.type_vocab_size, size),
                "LayerNorm": nn.LayerNorm(size, eps=config.layer_norm_eps),
            }
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))})
        self.apply(_start)

    def forward(self, ids: Tensor, mask: Tensor, shift: int = 0) -> Tensor:
        """Vectors of length 1 [texts, hidden] of ids and mask [texts, tokens]; positions start at `shift`."""
        positions = torch.arange(shift, shift + ids.size(1), device=ids.device)
        parts = self.embeddings
        x = (
            parts["word_embeddings"](ids)
            + parts["position_embeddings"](positions)
            + parts["token_type_embeddings"].weight[0]
        )
        x = parts["LayerNorm"](x)
        seen = mask[:, None, None, :].bool()
        for layer in self.encoder["layer"]:
            x = layer(x, seen)
        weight = mask.unsqueeze(-1).to(x.dtype)
        return functional.normalize((x * weight).sum(1) / weight.sum(1), dim=-1)


class Layer(nn.Module):
    """One layer, normalised after each part."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        size, inner, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        self.heads = config.num_attention_heads
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict({name: nn.Linear(size, size) for name in ("query", "key", "value")}),
                "output": nn.ModuleDict({"dense": nn.Linear(size, size), "LayerNorm": nn.LayerNorm(size, eps=eps)}),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(size, inner)})
        self.output = nn.ModuleDict({"dense": nn.Linear(inner, size), "LayerNorm": nn.LayerNorm(size, eps=eps)})

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """`seen` [texts, 1, 1, tokens] is true where a token is one."""
        rows, length, size = x.shape
        own = self.attention["self"]
        query, key, value = (
            own[name](x).view(rows, length, self.heads, -1).transpose(1, 2) for name in ("query", "key", "value")
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        after = self.attention["output"]
        x = after["LayerNorm"](x + after["dense"](mixed.transpose(1, 2).reshape(rows, length, size)))
        inner = functional.gelu(self.intermediate["dense"](x))
        return self.output["LayerNorm"](x + self.output["dense"](inner))


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(
            module.weight, std=0.02 if isinstance(module, nn.Embedding) else module.weight.size(1) ** -0.5 * 0.7
        )
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
