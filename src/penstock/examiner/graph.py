"""A build's own graph, run over whole texts: what the engine's arithmetic makes of them, rounding and all. The pipeline tells no probabilities of a given text."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.core.errors import BadRequest, Damaged
from penstock.engine.lifted import MODEL
from penstock.engine.signal_stack import own_signal_stack
from penstock.engine.worker import first_line, properties


class BuildGraph:
    """The model of one build, compiled as the engine does; its states are forgotten before each text."""

    def __init__(self, folder: Path, threads: int = 0) -> None:
        """Reads and compiles it.

        Raises:
            Damaged: if it cannot be loaded.
            BadRequest: if it is no model that goes on with texts.
        """
        import openvino as ov

        try:
            # Half-precision caches round where the pipeline's do; whole texts need none, so that they are exact here.
            told = properties(threads) | {"KV_CACHE_PRECISION": "f32"}
            with own_signal_stack():
                compiled = ov.Core().compile_model(folder / MODEL, "CPU", told)
        except RuntimeError as error:
            raise Damaged(f"{folder} cannot be loaded as an OpenVINO model: {first_line(error)}") from error
        self._names = {name for port in compiled.inputs for name in port.names}
        if "input_ids" not in self._names or not any("logits" in port.names for port in compiled.outputs):
            raise BadRequest(f"{folder.name} holds no model that goes on with texts.", code="unsupported_model")
        self._request: Any = compiled.create_infer_request()

    def forward(self, tokens: list[int]) -> NDArray[np.float32]:
        """Logits, one row a token."""
        count = len(tokens)
        inputs = {
            "input_ids": np.array([tokens], np.int64),
            "attention_mask": np.ones((1, count), np.int64),
            "position_ids": np.arange(count, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        self._request.reset_state()
        self._request.infer({name: value for name, value in inputs.items() if name in self._names})
        logits: NDArray[np.float32] = self._request.get_tensor("logits").data[0].copy()
        return logits
