"""Muon for matrices (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") beside AdamW for the rest."""

from __future__ import annotations

import torch
from torch import Tensor

_A, _B, _C = 3.4445, -4.7750, 2.0315  # the quintic Newton-Schulz iteration of the Muon post


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal. Matrices of one shape are handled as one batch."""

    def __init__(self, matrices: list[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Moves every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(tuple(matrix.shape), []).append(matrix)
            for shape, matrices in by_shape.items():
                updates = []
                for matrix in matrices:
                    buffer = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                    buffer.lerp_(matrix.grad, 1 - group["momentum"])
                    updates.append(matrix.grad.lerp(buffer, group["momentum"]))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for matrix, update in zip(matrices, orthogonal(torch.stack(updates)), strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(update.to(matrix.dtype), alpha=-group["lr"] * scale)


def orthogonal(batch: Tensor, steps: int = 5) -> Tensor:
    """Nearly the nearest orthogonal matrices of a batch [n, rows, columns]."""
    x = batch.bfloat16()
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if tall else x


def trapezoid(progress: float, warm: float = 0.01, decay: float = 0.45) -> float:
    """The learning rate's share of its peak: up over `warm`, flat, down to zero over the last `decay` of the run."""
    return max(0.0, min(1.0, progress / warm if warm else 1.0, (1.0 - progress) / decay))
