"""A tiny Llama with what the starter models do not have: grouped keys and values, wide heads, biases, an output layer of its own.

Numbers out of a seed, so that the script that makes the reference and the test build the same one. Needs numpy alone.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "rope_theta": 500.0,
    "tie_word_embeddings": False,
    "attention_bias": True,
    "mlp_bias": False,
    "hidden_act": "silu",
    "eos_token_id": 1,
}
TOKENS = [[5, 17, 42, 3, 90, 17, 42, 8, 61, 0, 33], [95, 2]]


def tensors() -> dict[str, np.ndarray]:
    """The weights, float32, by name."""
    draws = np.random.default_rng(20)
    heads, groups, width = CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"], CONFIG["head_dim"]
    hidden, inner, words = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (words, hidden),
        "lm_head.weight": (words, hidden),
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        name = f"model.layers.{layer}."
        for part, out in (("q_proj", heads * width), ("k_proj", groups * width), ("v_proj", groups * width)):
            shapes[f"{name}self_attn.{part}.weight"] = (out, hidden)
            shapes[f"{name}self_attn.{part}.bias"] = (out,)
        shapes[f"{name}self_attn.o_proj.weight"] = (hidden, heads * width)
        shapes[f"{name}self_attn.o_proj.bias"] = (hidden,)
        shapes |= {f"{name}mlp.{part}.weight": (inner, hidden) for part in ("gate_proj", "up_proj")}
        shapes[f"{name}mlp.down_proj.weight"] = (hidden, inner)
        shapes |= {f"{name}{part}.weight": (hidden,) for part in ("input_layernorm", "post_attention_layernorm")}
    shapes["model.norm.weight"] = (hidden,)
    return {
        name: (draws.normal(1 if "norm" in name else 0, 0.3, shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def write(folder: Path, kind: str = "F32") -> Path:
    """The model as a folder; `kind` is the type of its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, values in tensors().items():
        raw = {
            "F32": lambda v: v.tobytes(),
            "F16": lambda v: v.astype(np.float16).tobytes(),
            "BF16": lambda v: (v.view(np.uint32) >> 16).astype(np.uint16).tobytes(),
        }[kind](values)
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    head = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + body)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder
