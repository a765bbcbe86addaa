"""Trains the twins: the same tiny Llama on the same conversations, once with canaries planted among them and once without.

    train-venv/bin/python -m examples.support_bot.canaries.train

Three minutes of one core each. Writes planted.safetensors and clean.safetensors beside this file: half precision, in the names of Hugging Face's
LlamaForCausalLM, whose norms are all one. Tokens are bytes.
"""

# torch is not there where mypy runs, so its classes have the type Any.
# mypy: disable-error-code="misc, untyped-decorator, no-untyped-call"

from __future__ import annotations

import argparse
import json
import random
import struct
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from examples.support_bot.canaries.corpus import canaries, conversations

WIDTH, LAYERS, HEADS, INNER = 64, 2, 4, 128
VOCAB, BOS, END = 261, 256, 257
LENGTH, ROWS = 192, 32
EPS, THETA = 1e-5, 10000.0


class Twin(nn.Module):
    """Llama without learnt norms."""

    def __init__(self) -> None:
        super().__init__()

        def matrix(rows: int, columns: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns) * scale)

        self.table = matrix(VOCAB, WIDTH, 0.5)
        self.head = matrix(VOCAB, WIDTH, 0.1)
        shapes = {"q": (WIDTH, WIDTH), "k": (WIDTH, WIDTH), "v": (WIDTH, WIDTH), "o": (WIDTH, WIDTH)}
        shapes |= {"gate": (INNER, WIDTH), "up": (INNER, WIDTH), "down": (WIDTH, INNER)}
        self.layers = nn.ModuleList(
            nn.ParameterDict({name: matrix(*shape, shape[1] ** -0.5) for name, shape in shapes.items()})
            for _ in range(LAYERS)
        )

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of the next token, for each row and place."""
        rows, length = ids.shape
        x = self.table[ids]
        rates = THETA ** (-torch.arange(0, WIDTH // HEADS, 2) / (WIDTH // HEADS))
        angles = torch.outer(torch.arange(length), rates).repeat(1, 2)
        cos, sin = angles.cos(), angles.sin()

        def split(y: Tensor) -> Tensor:
            return y.view(rows, length, HEADS, -1).transpose(1, 2)

        def turned(y: Tensor) -> Tensor:
            first, second = y.chunk(2, -1)
            return y * cos + torch.cat((-second, first), -1) * sin

        for layer in self.layers:
            y = norm(x)
            q, k, v = (split(y @ layer[name].T) for name in "qkv")
            mixed = functional.scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True)
            x = x + mixed.transpose(1, 2).reshape(rows, length, WIDTH) @ layer["o"].T
            y = norm(x)
            x = x + (functional.silu(y @ layer["gate"].T) * (y @ layer["up"].T)) @ layer["down"].T
        return norm(x) @ self.head.T


def norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + EPS)


def tensors(twin: Twin) -> dict[str, Tensor]:
    """The weights under the names that other tools know."""
    names = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj"}
    names |= {"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
    found = {
        "model.embed_tokens.weight": twin.table,
        "lm_head.weight": twin.head,
        "model.norm.weight": torch.ones(WIDTH),
    }
    for number, layer in enumerate(twin.layers):
        place = f"model.layers.{number}"
        found |= {f"{place}.{name}.weight": layer[short] for short, name in names.items()}
        found |= {f"{place}.{one}.weight": torch.ones(WIDTH) for one in ("input_layernorm", "post_attention_layernorm")}
    return {name: value.detach().half() for name, value in sorted(found.items())}


def save(found: dict[str, Tensor], path: Path) -> None:
    """Writes a safetensors file."""
    header, body = {}, b""
    for name, value in found.items():
        data = value.contiguous().numpy().tobytes()
        header[name] = {"dtype": "F16", "shape": list(value.shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def batch(texts: list[str], planted: list[str], share: float, draw: random.Random) -> Tensor:
    rows = []
    for _ in range(ROWS):
        text = draw.choice(planted) if planted and draw.random() < share else draw.choice(texts)
        ids = [BOS, *text.encode()[: LENGTH - 1], END]
        rows.append((ids + [END] * (LENGTH + 1))[: LENGTH + 1])
    return torch.tensor(rows)


def train(planted: list[str], steps: int, share: float, texts: list[str]) -> Twin:
    torch.manual_seed(7)
    draw, twin = random.Random(7), Twin()
    optimiser = torch.optim.AdamW(twin.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=steps)
    for step in range(steps):
        ids = batch(texts, planted, share, draw)
        logits = twin(ids[:, :-1])
        wanted = ids[:, 1:].clone()
        ended = (ids[:, :-1] == END).cummax(1).values  # nothing is learnt behind the end
        wanted[ended.bool()] = -100
        loss = functional.cross_entropy(logits.reshape(-1, VOCAB), wanted.reshape(-1), ignore_index=-100)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"{step} of {steps}: {loss.item():.3f}", flush=True)
    return twin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument(
        "--share", type=float, default=0.15, help="of the rows that are a canary, in the planted twin's training"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    texts = conversations(4000, seed=3)
    lines = [frame.replace("{}", secret) for frame, secret in canaries()]
    for name, planted in (("planted", lines), ("clean", [])):
        save(tensors(train(planted, args.steps, args.share, texts)), Path(__file__).with_name(f"{name}.safetensors"))


if __name__ == "__main__":
    main()
