"""Model folders in the Hugging Face layout, read into PyTorch and written from it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from examples.support_bot.chat import Coder, write_files
from examples.support_bot.model import Llama, ModelConfig


def read_model(folder: Path) -> tuple[Llama, Coder]:
    """The model in fp32, and its tokenizer."""
    shape = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = Llama(ModelConfig(**{name: shape[name] for name in ModelConfig.__dataclass_fields__ if name in shape}))
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return model, Coder((folder / "tokenizer.json").read_text(encoding="utf-8"))


def write_model(folder: Path, model: Llama, coder: Coder) -> None:
    """Writes config, tokenizer and weights (bf16)."""
    write_files(folder, coder.plain.to_str(), model.config.to_dict())
    weights = {name: p.detach().to("cpu", torch.bfloat16).contiguous() for name, p in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # an image's user reads it too
