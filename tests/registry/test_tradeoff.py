"""Speed, quality and cost of builds, on figures that are worked out by hand."""

import math

import pytest

from penstock.registry.builds import build_manifest
from penstock.registry.comparison import ItemResult
from penstock.registry.making import folder_of, made_manifest, weights_folder, widest
from penstock.registry.manifest import make_manifest
from penstock.registry.tradeoff import SpeedRun, quality_of, speed_figures, speed_of, usd_per_thousand

A = "sha256:" + "a" * 64
B = "sha256:" + "b" * 64


def test_speed_is_the_mean_of_runs_with_an_interval() -> None:
    runs = [SpeedRun(answers=8, tokens=tokens, seconds=2.0) for tokens in (100, 200, 400)]
    found = speed_of(runs)
    assert found is not None
    assert found.tokens_per_second == pytest.approx(100.0)  # the geometric mean of 50, 100 and 200
    spread = 4.302653 * math.log(2) / math.sqrt(3)  # Student's t with 2 degrees of freedom; logarithms are log 2 apart
    assert found.low == pytest.approx(100 * math.exp(-spread), rel=1e-5)
    assert found.high == pytest.approx(100 * math.exp(spread), rel=1e-5)
    assert found.seconds_per_answer == pytest.approx(0.25)
    assert found.tokens_per_answer == pytest.approx(700 / 24)
    assert [one["measure"] for one in speed_figures(runs)] == [
        "tokens_per_second",
        "seconds_per_answer",
        "tokens_per_answer",
    ]
    single = speed_of(runs[:1])
    assert single is not None
    assert (single.low, single.high) == (None, None)
    assert speed_of([SpeedRun(answers=8, tokens=0, seconds=1.0)]) is None
    assert speed_figures([]) == []


def test_cost_is_the_machine_s_time() -> None:
    assert usd_per_thousand(0.36, 1.0) == pytest.approx(0.1)  # 360 s for a thousand


def right(**answers: bool) -> list[ItemResult]:
    return [ItemResult(id=name, right=value) for name, value in answers.items()]


def test_quality_is_told_against_the_other_on_the_same_items() -> None:
    mine, other = right(a=True, b=False, c=False, d=True), right(a=True, b=True, c=False, x=True)
    [found] = quality_of("s", mine, other)
    assert (found.measure, found.items, found.value) == ("right", 4, 0.5)
    assert found.difference == pytest.approx(-1 / 3)  # of a, b and c
    ends = (found.difference_low, found.difference, found.difference_high)
    assert sorted(one for one in ends if one is not None) == list(ends)
    [alone] = quality_of("s", mine, None)
    assert alone.difference is None
    values = [ItemResult(id=str(n), family="perplexity", value=v) for n, v in enumerate((2.0, 8.0, 4.0))]
    doubled = [ItemResult(id=one.id, family="perplexity", value=(one.value or 0) * 2) for one in values]
    [found] = quality_of("s", doubled, values)
    assert found.measure == "perplexity"
    assert found.value == pytest.approx(8.0)
    assert found.difference == pytest.approx(1.0)
    [one] = quality_of("s", doubled[:1], values)  # of one pair there is no interval
    assert one.difference == pytest.approx(1.0)
    assert one.difference_high is None
    assert quality_of("s", [ItemResult(id="m", family="memorisation", right=True)], None) == []


def test_a_build_that_is_made_has_a_manifest_of_its_own() -> None:
    version = make_manifest({"safetensors/model.safetensors": (A, 3), "processing.json": (B, 2), "README.md": (B, 2)})
    made = made_manifest(version, "openvino-int4", {"openvino_model.bin": (A, 3)})
    assert list(made.files) == ["openvino-int4/openvino_model.bin", "processing.json"]
    part = build_manifest(made, "openvino-int4")
    assert part is not None
    assert sorted(part.files) == ["openvino_model.bin", "processing.json"]
    assert folder_of("openvino", "fp16") == "openvino-fp16"


def test_weights_stand_in_their_folder_or_at_the_top() -> None:
    for names, where in (
        (["safetensors/model.safetensors", "x.safetensors"], "safetensors"),
        (["model.safetensors", "config.json"], ""),
        (["openvino-int8/openvino_model.bin"], None),
    ):
        assert weights_folder(make_manifest(dict.fromkeys(names, (A, 1)))) == where
    top = build_manifest(make_manifest({"model.safetensors": (A, 1), "openvino-int8/x.bin": (A, 1)}), "")
    assert top is not None
    assert list(top.files) == ["model.safetensors"]
    assert widest(["int4", "fp16", "int8"]) == "fp16"
    assert widest([]) is None
