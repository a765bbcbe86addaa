"""The bench of storage, small: what it generates differs as it says, and what is stored and moved stays within the targets."""

from pathlib import Path

import numpy as np
import pytest

from bench import registry
from bench.registry import measure, to_bf16, to_float, tuned


def test_numbers_are_rounded_to_the_nearest() -> None:
    values = np.array([1.0, 1.00390625, 1.001, -0.02, 3e38], np.float32)
    assert np.all(np.abs(to_float(to_bf16(values)) - values) <= np.abs(values) * 2**-8)
    base = {"a": to_bf16(np.random.default_rng(1).normal(0, 0.02, 10_000))}
    steps = to_float(tuned(base, np.random.default_rng(2))["a"]) - to_float(base["a"])
    assert 0.5e-4 < steps.std() < 2e-4


@pytest.mark.timeout(300)
def test_what_is_stored_and_moved_stays_within_the_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(registry, "BLOCK", 100_000)  # of neighbours that are as small as the base here, all but headers
    found = measure(tmp_path, 4, 1)
    assert [row["version"] for row in found["dedupe"]["versions"]][-1] == "full fine-tune again"
    assert found["dedupe"]["deltas"] > 100
    assert found["stored_share"] <= 0.35
    assert found["moved_share"] <= 1.15
    assert found["pulled_share"] <= 1.15
    assert found["ingest"] > 0
    assert not (tmp_path / "speed").exists()
