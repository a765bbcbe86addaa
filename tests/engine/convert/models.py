"""Models with random weights in Hugging Face's layout, of any shape, written without torch; and what they compute, in numpy."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # GPT-2's


def write_safetensors(file: Path, tensors: dict[str, Array]) -> None:
    """All tensors in one file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            out.write(np.ascontiguousarray(tensor, np.float32).tobytes())


def byte_names() -> list[str]:
    """The character that stands for each byte in byte-level vocabularies (Radford et al. 2019, their encoder.py)."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in kept else chr(next(others)) for byte in range(256)]


def write_tokenizer(folder: Path, vocabulary: int, *, template: str | None = None, context: int = 256) -> None:
    """A byte-level BPE tokenizer with `vocabulary` tokens: the bytes, pairs of them as far as there is room, `<|endoftext|>` last."""
    names = byte_names()
    pairs = [(a, b) for a in names for b in names][: vocabulary - len(names) - 1]
    words = [*names, *("".join(pair) for pair in pairs)]
    end = {"id": len(words), "content": "<|endoftext|>", "special": True, "normalized": False}
    told = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**end, "single_word": False, "lstrip": False, "rstrip": False}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {word: number for number, word in enumerate([*words, "<|endoftext|>"])},
            "merges": [" ".join(pair) for pair in pairs],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(told))
    config = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": context}
    config |= dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config | ({"chat_template": template} if template else {}))
    )


def write_gpt2(
    folder: Path,
    *,
    layers: int = 2,
    width: int = 64,
    heads: int = 4,
    vocabulary: int = 400,
    context: int = 64,
    seed: int = 0,
) -> Path:
    """A GPT-2."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)

    def drawn(*shape: int, around: float = 0.0, spread: float = 0.15) -> Array:
        return (random.standard_normal(shape, np.float32) * spread + around).astype(np.float32)

    tensors = {"wte.weight": drawn(vocabulary, width), "wpe.weight": drawn(context, width)}
    for layer in range(layers):
        name = f"h.{layer}"
        for norm in ("ln_1", "ln_2"):
            tensors |= {f"{name}.{norm}.weight": drawn(width, around=1.0), f"{name}.{norm}.bias": drawn(width)}
        shapes = {"attn.c_attn": 3 * width, "attn.c_proj": width, "mlp.c_fc": 4 * width, "mlp.c_proj": width}
        for part, columns in shapes.items():
            rows = 4 * width if part == "mlp.c_proj" else width
            tensors |= {f"{name}.{part}.weight": drawn(rows, columns), f"{name}.{part}.bias": drawn(columns)}
    tensors |= {"ln_f.weight": drawn(width, around=1.0), "ln_f.bias": drawn(width)}
    write_safetensors(folder / "model.safetensors", tensors)
    end = vocabulary - 1
    config: dict[str, Any] = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "activation_function": "gelu_new",
    }
    config |= {"n_layer": layers, "n_embd": width, "n_head": heads, "n_positions": context, "n_ctx": context}
    config |= {"vocab_size": vocabulary, "layer_norm_epsilon": 1e-5, "bos_token_id": end, "eos_token_id": end}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": end, "eos_token_id": end}))
    write_tokenizer(folder, vocabulary, context=context)
    return folder


def write_llama(
    folder: Path,
    *,
    layers: int = 2,
    width: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    head: int = 16,
    inner: int = 96,
    vocabulary: int = 400,
    tied: bool = False,
    template: str | None = None,
    seed: int = 0,
    **more: Any,
) -> Path:
    """A Llama; `more` goes into config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)

    def drawn(*shape: int, around: float = 0.0) -> Array:
        return (random.standard_normal(shape, np.float32) * 0.15 + around).astype(np.float32)

    tensors = {"model.embed_tokens.weight": drawn(vocabulary, width), "model.norm.weight": drawn(width, around=1.0)}
    if not tied:
        tensors["lm_head.weight"] = drawn(vocabulary, width)
    for layer in range(layers):
        name = f"model.layers.{layer}"
        shapes = {
            "self_attn.q_proj": (heads * head, width),
            "self_attn.k_proj": (kv_heads * head, width),
            "self_attn.v_proj": (kv_heads * head, width),
            "self_attn.o_proj": (width, heads * head),
            "mlp.gate_proj": (inner, width),
            "mlp.up_proj": (inner, width),
            "mlp.down_proj": (width, inner),
        }
        tensors |= {f"{name}.{part}.weight": drawn(*shape) for part, shape in shapes.items()}
        tensors |= {
            f"{name}.{n}.weight": drawn(width, around=1.0) for n in ("input_layernorm", "post_attention_layernorm")
        }
    write_safetensors(folder / "model.safetensors", tensors)
    end = vocabulary - 1
    config: dict[str, Any] = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu"}
    config |= {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
    config |= {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head,
        "vocab_size": vocabulary,
    }
    config |= {"max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": tied}
    config |= {"bos_token_id": end, "eos_token_id": end, "torch_dtype": "float32", **more}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": end}))
    write_tokenizer(folder, vocabulary, template=template)
    return folder


def gpt2_logits(folder: Path, tokens: list[int]) -> Array:
    """What a GPT-2 computes: Radford et al. 2019, section 2.3, over Radford et al. 2018, section 3; GELU by its tanh (Hendrycks and Gimpel 2016)."""
    from penstock.engine.probe.weights import Weights

    weights, config = Weights(folder), json.loads((folder / "config.json").read_bytes())
    heads = config["n_head"]

    def norm(x: Array, name: str) -> Array:
        even = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + config["layer_norm_epsilon"])
        return np.asarray(even * weights.get(f"{name}.weight") + weights.get(f"{name}.bias"), np.float32)

    def linear(x: Array, name: str) -> Array:
        return np.asarray(x @ weights.get(f"{name}.weight") + weights.get(f"{name}.bias"), np.float32)

    x = weights.get("wte.weight")[tokens] + weights.get("wpe.weight")[: len(tokens)]
    count, width = x.shape
    for layer in range(config["n_layer"]):
        name = f"h.{layer}"
        parts = np.split(linear(norm(x, f"{name}.ln_1"), f"{name}.attn.c_attn"), 3, axis=1)
        query, key, value = (part.reshape(count, heads, -1).transpose(1, 0, 2) for part in parts)
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(width // heads)
        scores[:, np.triu(np.ones((count, count), bool), 1)] = -np.inf
        seen = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (seen / seen.sum(-1, keepdims=True) @ value).transpose(1, 0, 2).reshape(count, width)
        x = x + linear(mixed.astype(np.float32), f"{name}.attn.c_proj")
        wide = linear(norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc")
        wide = 0.5 * wide * (1 + np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
        x = x + linear(wide.astype(np.float32), f"{name}.mlp.c_proj")
    return np.asarray(norm(x, "ln_f") @ weights.get("wte.weight").T, np.float32)
