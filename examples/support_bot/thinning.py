"""Where a student begins: a teacher without the attention heads and neurons that its answers need least, the rest fitted to make up for them.

After the heads and neurons are chosen, what each layer writes is fitted anew, by least squares and in closed form, so that on real
conversations the student's features come as near to the teacher's as what is left allows, layer upon layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.support_bot.losses import distillation
from examples.support_bot.model import Layer, Llama, ModelConfig, packed_mask

_RIDGE = 1e-4  # of the mean square of a feature


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Packed conversations, and the places in them whose next token is an answer's.

    `ids`, `positions`, `owners` and `answers`: [rows, length]; `targets` and `weights` are of the places that `answers` marks.
    """

    ids: Tensor
    positions: Tensor
    owners: Tensor
    answers: Tensor
    targets: Tensor
    weights: Tensor

    @classmethod
    def of(cls, arrays: tuple[NDArray[Any], ...], device: str) -> Batch:
        """What `Packer.batch` gives, as tensors."""
        ids, weights, positions, owners = (torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays)
        answers = weights[:, 1:] >= 1.0
        return cls(
            ids=ids[:, :-1],
            positions=positions[:, :-1],
            owners=owners[:, :-1],
            answers=answers,
            targets=ids[:, 1:][answers],
            weights=weights[:, 1:][answers],
        )


def shaped(teacher: Llama, layers: int, heads: int, ffn: int) -> Llama:
    """A model of a student's shape, whose weights say nothing yet."""
    shape = teacher.config.to_dict() | {
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "head_dim": teacher.config.head_size,
        "intermediate_size": ffn,
    }
    return Llama(ModelConfig(**shape)).to(teacher.model.embed_tokens.weight.device)


@torch.no_grad()
def thinned(teacher: Llama, few: Batch, batches: list[Batch], *, keep: list[int], heads: int, ffn: int) -> Llama:
    """A model of the teacher's layers `keep`, each with the `heads` heads and the `ffn` neurons that matter most on `few`, fitted on `batches`."""
    config, student = teacher.config, shaped(teacher, len(keep), heads, ffn)
    weights = {name: value for name, value in teacher.state_dict().items() if ".layers." not in name}
    needed, used = head_needs(teacher, few), neuron_uses(teacher, few)
    for at, number in enumerate(keep):
        state = teacher.model.layers[number].state_dict()
        best = needed[number].topk(heads).indices.sort().values
        features = (best[:, None] * config.head_size + torch.arange(config.head_size, device=best.device)).flatten()
        neurons = used[number].topk(ffn).indices.sort().values
        inputs = {"self_attn.q": features, "self_attn.k": features, "self_attn.v": features, "mlp.gate": neurons}
        outputs = {"self_attn.o": features, "mlp.down": neurons}
        for name, kept in {**inputs, "mlp.up": neurons}.items():
            state[f"{name}_proj.weight"] = state[f"{name}_proj.weight"][kept]
        for name, kept in outputs.items():
            state[f"{name}_proj.weight"] = state[f"{name}_proj.weight"][:, kept]
        weights |= {f"model.layers.{at}.{name}": value for name, value in state.items()}
    student.load_state_dict(weights)
    fit(student, teacher, keep, batches)
    return student


@torch.no_grad()
def fit(student: Llama, teacher: Llama, keep: list[int], batches: list[Batch]) -> None:
    """Sets `o_proj` and `down_proj` of each layer so that the student's features come nearest to those of the teacher's layer.

    Each sees what the layers before it, fitted already, give it. Features of the answers' places count ten times.
    """
    theirs = [_streams(teacher, batch) for batch in batches]
    mine = [student.model.embed_tokens(batch.ids) for batch in batches]
    weight = torch.cat([1.0 + 9.0 * batch.answers[batch.owners > 0].float() for batch in batches])
    for layer, number in zip(student.model.layers, keep, strict=True):
        for part, read, target in (
            (layer.self_attn.o_proj, _attended, 2 * number + 1),
            (layer.mlp.down_proj, _activated, 2 * number + 2),
        ):
            given = [read(student, layer, x, batch) for x, batch in zip(mine, batches, strict=True)]
            wanted = [their[target] - x for their, x in zip(theirs, mine, strict=True)]
            real = [batch.owners > 0 for batch in batches]
            part.weight.copy_(
                _least_squares(
                    torch.cat([x[where] for x, where in zip(given, real, strict=True)]),
                    torch.cat([x[where] for x, where in zip(wanted, real, strict=True)]),
                    weight,
                ).T
            )
            mine = [x + part(features) for x, features in zip(mine, given, strict=True)]


def _streams(model: Llama, batch: Batch) -> list[Tensor]:
    """The features before the first layer, and behind the attention and the MLP of each."""
    x = model.model.embed_tokens(batch.ids)
    found = [x]
    for layer in model.model.layers:
        found.append(found[-1] + layer.self_attn.o_proj(_attended(model, layer, found[-1], batch)))
        found.append(found[-1] + layer.mlp.down_proj(_activated(model, layer, found[-1], batch)))
    return found


def _attended(model: Llama, layer: Layer, x: Tensor, batch: Batch) -> Tensor:
    """What the heads of a layer give to its `o_proj`."""
    cos, sin = (table[batch.positions].unsqueeze(1) for table in (model.cos, model.sin))
    return layer.self_attn.heads_of(layer.input_layernorm(x), cos, sin, packed_mask(batch.owners), None)


def _activated(_model: Llama, layer: Layer, x: Tensor, _batch: Batch) -> Tensor:
    """What the neurons of a layer give to its `down_proj`."""
    return layer.mlp.neurons_of(layer.post_attention_layernorm(x))


def _least_squares(given: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """The matrix that makes `wanted` [rows, out] of `given` [rows, in] with the least weighted square error, a little held back (ridge)."""
    given, wanted = given.double(), wanted.double()
    scaled = given * weight[:, None]
    gram = scaled.T @ given
    gram += _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram, scaled.T @ wanted).float()


@torch.no_grad()
def head_needs(model: Llama, batch: Batch) -> Tensor:
    """How far the answers' probabilities move when one head says nothing: the soft loss against the whole model, [layers, heads]."""
    whole = _logits(model, batch)
    needs = torch.zeros(model.config.num_hidden_layers, model.config.num_attention_heads, device=batch.ids.device)
    for at, layer in enumerate(model.model.layers):
        weight = layer.self_attn.o_proj.weight
        for head in range(model.config.num_attention_heads):
            own = slice(head * model.config.head_size, (head + 1) * model.config.head_size)
            kept = weight[:, own].clone()
            weight[:, own] = 0.0
            without = _logits(model, batch)
            weight[:, own] = kept
            needs[at, head], _ = distillation(
                torch, without, whole, batch.targets, batch.weights, temperature=1.0, mix=1.0
            )
    return needs


@torch.no_grad()
def neuron_uses(model: Llama, batch: Batch) -> list[Tensor]:
    """For each layer and neuron of its MLP: the sum over the answers' places of its activation's size, times the norm of what it writes."""
    uses: list[Tensor] = []

    def note(mlp: Any, given: tuple[Tensor, ...]) -> None:
        uses.append(mlp.neurons_of(given[0][batch.answers]).abs().sum(0) * mlp.down_proj.weight.norm(dim=0))

    hooks = [layer.mlp.register_forward_pre_hook(note) for layer in model.model.layers]
    _logits(model, batch)
    for hook in hooks:
        hook.remove()
    return uses


def _logits(model: Llama, batch: Batch) -> Tensor:
    features = model.features(batch.ids, batch.positions, packed_mask(batch.owners))
    return model.logits(features[batch.answers])
