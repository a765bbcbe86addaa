"""A small Llama in PyTorch, with the parameter names and conventions of Hugging Face's LlamaForCausalLM.

RMSNorm (Zhang and Sennrich 2019), rotary embeddings in the rotate-half convention (Su et al. 2021), SwiGLU (Shazeer 2020).
"""

# torch is not there where mypy runs, so its classes have the type Any.
# mypy: disable-error-code="misc, untyped-decorator"

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of the model; sizes in numbers of features."""

    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 704
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    max_position_embeddings: int = 1024
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    head_dim: int | None = None  # None: the heads share hidden_size

    @property
    def head_size(self) -> int:
        """Features of one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    def to_dict(self) -> dict[str, Any]:
        """The fields under the names of Hugging Face's config.json."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size, inner = config.hidden_size, config.num_attention_heads * config.head_size
        self.heads = config.num_attention_heads
        self.q_proj = nn.Linear(size, inner, bias=False)
        self.k_proj = nn.Linear(size, inner, bias=False)
        self.v_proj = nn.Linear(size, inner, bias=False)
        self.o_proj = nn.Linear(inner, size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, past: list[Tensor] | None) -> Tensor:
        """Features in, features out: [rows, length, hidden_size]."""
        return self.o_proj(self.heads_of(x, cos, sin, mask, past))

    def heads_of(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, past: list[Tensor] | None) -> Tensor:
        """What the heads read, one behind the other: [rows, length, heads * head_size]."""
        rows, length, _ = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(rows, length, self.heads, -1).transpose(1, 2)

        q, k, v = (split(projection(x)) for projection in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if past is not None:
            if past:
                k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
            past[:] = [k, v]
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return y.transpose(1, 2).reshape(rows, length, -1)


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features in, features out: [rows, length, hidden_size]."""
        return self.down_proj(self.neurons_of(x))

    def neurons_of(self, x: Tensor) -> Tensor:
        """What the neurons say: [..., intermediate_size]."""
        return functional.silu(self.gate_proj(x)) * self.up_proj(x)


class RmsNorm(nn.Module):
    """Scales to a mean square of one, computed in fp32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Features in, features out: [rows, length, hidden_size]."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (normed * self.weight).to(x.dtype)


class Layer(nn.Module):
    """Attention and MLP, each with a norm ahead and a sum behind."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, past: list[Tensor] | None) -> Tensor:
        """Features in, features out: [rows, length, hidden_size]."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask, past)
        return x + self.mlp(self.post_attention_layernorm(x))


class Inner(nn.Module):
    """The part that Hugging Face names `model`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)


class Llama(nn.Module):
    """Token ids in, logits out; input and output embeddings are one matrix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Inner(config)
        half = config.head_size // 2
        frequency = config.rope_theta ** (-torch.arange(half).float() / half)
        angle = torch.outer(torch.arange(config.max_position_embeddings).float(), frequency)
        self.register_buffer("cos", torch.cat((angle, angle), -1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat((angle, angle), -1).sin(), persistent=False)
        self.apply(self._init)
        for layer in self.model.layers:
            for projection in (layer.self_attn.o_proj, layer.mlp.down_proj):
                nn.init.normal_(projection.weight, std=0.02 / (2 * config.num_hidden_layers) ** 0.5)

    @staticmethod
    def _init(module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, ids: Tensor, positions: Tensor, mask: Tensor, past: list[list[Tensor]] | None = None) -> Tensor:
        """`ids`, `positions`: [rows, length]; `mask`: [rows, 1, length, seen], true where attention may look."""
        return self.logits(self.features(ids, positions, mask, past))

    def features(self, ids: Tensor, positions: Tensor, mask: Tensor, past: list[list[Tensor]] | None = None) -> Tensor:
        """What the logits are read from: [rows, length, hidden_size]."""
        x = self.model.embed_tokens(ids)
        dtype = torch.get_autocast_dtype(ids.device.type) if torch.is_autocast_enabled(ids.device.type) else x.dtype
        x = x.to(dtype)
        cos, sin = self.cos[positions].unsqueeze(1).to(dtype), self.sin[positions].unsqueeze(1).to(dtype)
        for at, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, mask, None if past is None else past[at])
        return self.model.norm(x)

    def logits(self, features: Tensor) -> Tensor:
        """[..., hidden_size] to [..., vocab_size]."""
        return functional.linear(features, self.model.embed_tokens.weight.to(features.dtype))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, rotate-half (Su et al. 2021, as laid out by GPT-NeoX and Hugging Face)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def parameters(config: ModelConfig) -> int:
    """Number of weights, the tied embedding counted once."""
    size, wide, inner = config.hidden_size, config.intermediate_size, config.num_attention_heads * config.head_size
    return config.vocab_size * size + config.num_hidden_layers * (4 * size * inner + 3 * size * wide + 2 * size) + size


def packed_mask(owners: Tensor) -> Tensor:
    """Where attention may look in rows of several documents: back, and in the same one. [rows, length] to [rows, 1, length, length]."""
    length = owners.size(1)
    causal = torch.ones(length, length, dtype=torch.bool, device=owners.device).tril()
    return (owners[:, None, :, None] == owners[:, None, None, :]) & causal


@torch.no_grad()
def generate(model: Llama, prompts: list[list[int]], end: int, limit: int = 72) -> list[list[int]]:
    """The likeliest next tokens of each prompt, up to and without `end`; prompts are padded at the left."""
    device = model.model.embed_tokens.weight.device
    rows, width = len(prompts), max(map(len, prompts))
    ids = torch.zeros(rows, width, dtype=torch.long)
    seen = torch.zeros(rows, width, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        seen[row, width - len(prompt) :] = True
    ids, seen = ids.to(device), seen.to(device)
    positions = (seen.long().cumsum(-1) - 1).clamp(min=0)
    mask = (seen[:, None, None, :] & torch.ones(width, width, dtype=torch.bool, device=device).tril()) | torch.eye(
        width, dtype=torch.bool, device=device
    )
    past: list[list[Tensor]] = [[] for _ in model.model.layers]
    out: list[list[int]] = [[] for _ in prompts]
    done = torch.zeros(rows, dtype=torch.bool)
    for _ in range(limit):
        chosen = model(ids, positions, mask, past)[:, -1].argmax(-1)
        for row, token in enumerate(chosen.tolist()):
            done[row] |= token == end
            if not done[row]:
                out[row].append(token)
        if bool(done.all()):
            break
        ids, positions = chosen[:, None], positions[:, -1:] + 1
        seen = torch.cat((seen, torch.ones(rows, 1, dtype=torch.bool, device=device)), 1)
        mask = seen[:, None, None, :]
    return out
