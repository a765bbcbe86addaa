"""A model whose logits are all positive, so that the pipeline's penalties mean what OpenAI's mean.

The API defines presence and frequency penalties as subtracted from a token's logit, whatever its sign. The pipeline
subtracts from positive logits and *adds* to negative ones, so that a penalty makes such a token likelier. Adding one constant to all
logits changes no probability and makes all that matter positive.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

LIFT = 128.0  # float32 keeps steps of 1.5e-5 there, and the likeliest tokens of trained models lie far above -128
LARGEST = 1 << 30  # bytes of weights: they are written once more, which must not take long

MODEL = "openvino_model.xml"


@contextlib.contextmanager
def lifted(directory: Path) -> Iterator[Path | None]:
    """A folder like `directory` whose model has lifted logits, while the context lasts; None if that cannot be had.

    The pipeline may go on using what it has loaded from the folder after it has gone.
    """
    import numpy as np
    import openvino as ov
    from openvino import opset13 as op

    weights = (directory / MODEL).with_suffix(".bin")
    if not weights.is_file() or weights.stat().st_size > LARGEST:
        yield None
        return
    model = ov.Core().read_model(directory / MODEL)
    result = model.get_results()[0]
    logits = result.input(0).get_source_output()
    names = logits.get_names()
    above = op.add(logits, op.constant(np.float32(LIFT)))
    logits.get_tensor().set_names(set())
    above.output(0).get_tensor().set_names(names)
    result.input(0).replace_source_output(above.output(0))
    model.validate_nodes_and_infer_types()
    with tempfile.TemporaryDirectory(prefix="penstock-engine-") as name:
        folder = Path(name)
        for entry in directory.iterdir():
            if entry.name not in {MODEL, weights.name}:
                (folder / entry.name).symlink_to(entry.resolve())
        ov.save_model(model, folder / MODEL, compress_to_fp16=False)
        yield folder
