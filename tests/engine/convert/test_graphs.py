"""Graphs against a forward pass in numpy, whole and in steps; rounding; the same bytes each time; the pipeline's own tokens."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from penstock.core.errors import BadRequest, Damaged, NotFound
from penstock.engine.convert.compress import GROUP, matrix, round_rows
from penstock.engine.convert.folder import convert
from penstock.engine.messages import Start
from penstock.engine.probe.llama import Llama
from penstock.engine.signal_stack import own_signal_stack
from penstock.engine.worker import load
from tests.engine.convert.models import gpt2_logits, write_gpt2, write_llama

pytestmark = pytest.mark.engine
TOKENS = [5, 99, 256, 31, 300, 7, 7, 1]
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "INFERENCE_NUM_THREADS": 1}


def run(folder: Path, *parts: list[int]) -> Any:
    """The logits of the last of `parts`, those before it being in the cache."""
    import openvino as ov

    with own_signal_stack():
        request = ov.Core().compile_model(folder / "openvino_model.xml", "CPU", EXACT).create_infer_request()
    before = 0
    for part in parts:
        whole = before + len(part)
        request.infer(
            {
                "input_ids": np.array([part], np.int64),
                "attention_mask": np.ones((1, whole), np.int64),
                "position_ids": np.arange(before, whole, dtype=np.int64)[None],
                "beam_idx": np.zeros(1, np.int32),
            }
        )
        before = whole
    return request.get_tensor("logits").data[0]


def built(source: Path, target: Path, precision: Any = "fp32") -> Path:
    target.mkdir(parents=True)
    convert(source, target, precision, lambda _step: None)
    return target


Models = dict[str, tuple[Path, Any]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Folders, and the logits that are right for TOKENS."""
    base = tmp_path_factory.mktemp("models")
    found = {
        "grouped": write_llama(base / "grouped"),
        "tied": write_llama(base / "tied", kv_heads=4, tied=True, rope_theta=5000.0, seed=3),
        "gpt2": write_gpt2(base / "gpt2"),
    }
    return {
        name: (folder, gpt2_logits(folder, TOKENS) if name == "gpt2" else Llama(folder).forward(TOKENS))
        for name, folder in found.items()
    }


@pytest.mark.parametrize("name", ["grouped", "tied", "gpt2"])
def test_a_graph_computes_what_the_model_is(models: Models, tmp_path: Path, name: str) -> None:
    source, right = models[name]
    folder = built(source, tmp_path / "b")
    assert np.abs(run(folder, TOKENS) - right).max() < 1e-4
    assert np.abs(run(folder, TOKENS[:3], TOKENS[3:4], TOKENS[4:]) - right[4:]).max() < 1e-4


@pytest.mark.parametrize("name", ["grouped", "gpt2"])
def test_narrower_precisions_are_smaller_and_less_exact(models: Models, tmp_path: Path, name: str) -> None:
    source, right = models[name]
    sizes, errors = [], []
    for precision in ("fp32", "fp16", "int8", "int4"):
        folder = built(source, tmp_path / precision, precision)
        sizes.append((folder / "openvino_model.bin").stat().st_size)
        errors.append(float(np.sqrt(np.mean((run(folder, TOKENS) - right) ** 2))))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[3] < sizes[2] < 0.3 * sizes[0]
    assert errors[0] < errors[1] < errors[2] < errors[3] < 0.5 * float(right.std())


@pytest.mark.parametrize("name", ["grouped", "gpt2"])
def test_the_pipeline_makes_the_tokens_that_are_likeliest(models: Models, tmp_path: Path, name: str) -> None:
    import openvino as ov
    import openvino_genai

    source, _ = models[name]
    folder = built(source, tmp_path / "b")
    start = Start(
        directory=str(folder), max_running=2, kv_blocks=32, threads=1, prefix_cache=False, stop_ids=(), interval_s=0.0
    )
    pipeline, _ready = load(start)
    wanted = openvino_genai.GenerationConfig()
    wanted.max_new_tokens, wanted.ignore_eos, wanted.eos_token_id, wanted.apply_chat_template = 8, True, -1, False
    handle = pipeline.add_request(1, ov.Tensor(np.array([TOKENS], np.int64)), wanted)
    made: list[int] = []
    while pipeline.has_non_finished_requests():
        pipeline.step()
        while handle.can_read():
            for output in handle.read().values():
                made += output.generated_ids
    likeliest = list(TOKENS)
    for _ in range(8):
        logits = gpt2_logits(source, likeliest) if name == "gpt2" else Llama(source).forward(likeliest)
        likeliest.append(int(logits[-1].argmax()))
    assert made == likeliest[len(TOKENS) :]


def test_the_same_weights_give_the_same_bytes(models: Models, tmp_path: Path) -> None:
    told = []
    for number in (1, 2):
        target = tmp_path / str(number)
        target.mkdir()
        argv = [sys.executable, "-m", "penstock.engine.convert", str(models["grouped"][0]), str(target), "int4"]
        told.append(subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120).stdout)
    assert told[0] == told[1]
    assert '"step":"writing"' in told[0]
    files = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert "openvino_model.bin" in files
    assert "tokenizer_config.json" in files
    for name in files:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_what_has_no_graph_is_refused_by_name(tmp_path: Path) -> None:
    target = tmp_path / "t"
    target.mkdir()

    def refused(**more: Any) -> BadRequest:
        folder = write_llama(tmp_path / "m", layers=1, **more)
        with pytest.raises(BadRequest) as raised:
            convert(folder, target, "int8", lambda _step: None)
        assert raised.value.code == "unsupported_model"
        return raised.value

    assert "'mamba'" in refused(model_type="mamba").message
    assert "yarn" in refused(rope_scaling={"rope_type": "yarn", "factor": 4.0}).message
    assert "gelu" in refused(hidden_act="gelu").message
    with pytest.raises(NotFound, match=r"config\.json"):
        convert(tmp_path, target, "int8", lambda _step: None)
    folder = write_llama(tmp_path / "m", layers=3)
    write_llama(tmp_path / "fewer", layers=2)
    (folder / "model.safetensors").write_bytes((tmp_path / "fewer" / "model.safetensors").read_bytes())
    with pytest.raises(Damaged, match=r"model\.layers\.2"):
        convert(folder, target, "int8", lambda _step: None)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(Damaged, match="hidden_size"):
        convert(folder, target, "int8", lambda _step: None)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, (3, 8), elements=st.floats(-1000, 1000, width=32)),
    st.sampled_from([15, 255]),
)
def test_rounding_errs_by_half_a_step_and_never_at_zero(weight: Any, levels: int) -> None:
    numbers, scale, zero = round_rows(weight, levels)
    exact = scale.astype(np.float32)
    back = (numbers.astype(np.float32) - zero) * exact
    # Half a step for the rounding, and half of one for zero's; what float16 takes from the scale, times the levels, at the ends.
    assert np.all(np.abs(back - weight) <= exact * (1.0 + levels * 2.0**-11) + 1e-6)
    assert np.all(back[weight == 0] == 0)


@pytest.mark.parametrize(
    ("columns", "precision"), [(2 * GROUP, "int4"), (48, "int4"), (50, "int4"), (50, "int8"), (50, "fp16")]
)
def test_a_rounded_matrix_is_computed_as_it_was_rounded(columns: int, precision: Any) -> None:
    import openvino as ov
    from openvino import opset13 as op

    weight = np.random.default_rng(1).standard_normal((7, columns)).astype(np.float32)
    x = op.parameter([-1, columns], np.float32)
    graph = ov.Model([op.result(op.matmul(x, matrix("w", weight, precision), False, True))], [x], "m")
    with own_signal_stack():
        compiled = ov.Core().compile_model(graph, "CPU", EXACT)
    got = compiled(np.eye(columns, dtype=np.float32))[0].T
    if precision == "fp16":
        right = weight.astype(np.float16).astype(np.float32)
    else:
        four = precision == "int4" and columns != 50  # no group divides 50: it keeps 8 bits
        groups = {2 * GROUP: 2, 48: 3}.get(columns, 1) if four else 1
        numbers, scale, zero = round_rows(weight.reshape(7, groups, -1), 15 if four else 255)
        right = ((numbers.astype(np.float32) - zero) * scale.astype(np.float32)).reshape(7, columns)
    assert np.abs(got - right).max() < 2e-3
