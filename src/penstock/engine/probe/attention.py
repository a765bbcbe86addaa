"""Figures of attention: how widely it is spread, and how much of it goes to the first token whatever the text says."""

import numpy as np

from penstock.engine.probe.record import LayerFigures
from penstock.engine.probe.weights import Array


class AttentionSums:
    """Adds up what a model's layers show. The first token, which can look at itself alone, is left out."""

    def __init__(self, layers: int) -> None:
        self._sums = np.zeros((layers, 3))
        self._counts = np.zeros(layers, np.int64)

    def see(self, layer: int, attention: Array) -> None:
        """Takes one text's distributions in one layer: heads x queries x keys, each row adding up to 1."""
        rows = attention[:, 1:, :].astype(np.float64)
        if not rows.shape[1]:
            return
        logs = np.log(rows, out=np.zeros_like(rows), where=rows > 0)
        entropy = -(rows * logs).sum(axis=2)
        even = np.log(np.arange(2, rows.shape[1] + 2))
        self._sums[layer] += (entropy.sum(), (entropy / even).sum(), rows[:, :, 0].sum())
        self._counts[layer] += entropy.size

    def figures(self) -> list[LayerFigures]:
        """Of each layer that was seen."""
        return [
            LayerFigures(layer=layer, entropy_nats=nats, entropy_ratio=ratio, sink_ratio=sink)
            for layer, count in enumerate(self._counts)
            if count
            for nats, ratio, sink in [(self._sums[layer] / count).tolist()]
        ]
