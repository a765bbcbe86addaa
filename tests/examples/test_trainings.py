"""The trainings themselves, a few steps long, on the real models. They need PyTorch, which Penstock's own environment has not.

PENSTOCK_TRAIN_PYTHON=train-venv/bin/python .venv/bin/pytest -m soak tests/examples/test_trainings.py
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from examples.support_bot.compare import compared, read_each
from examples.support_bot.generator import open_corpus
from examples.support_bot.shop import load_shop
from examples.support_bot.visitors import visitors
from penstock.control.specs.version import check_version_metadata

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "examples" / "support_bot" / "models"
PYTHON = os.environ.get("PENSTOCK_TRAIN_PYTHON", "")
pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PYTHON, reason="PENSTOCK_TRAIN_PYTHON names no Python with PyTorch"),
]


def run(module: str, *words: str | Path) -> str:
    """What `python -m examples.support_bot.MODULE` prints."""
    done = subprocess.run(
        [PYTHON, "-m", f"examples.support_bot.{module}", *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_distillation_goes_on_where_it_stopped_and_its_student_is_a_third_at_most(tmp_path: Path) -> None:
    def distil(steps: int) -> str:
        return run(
            "distil", "--state", tmp_path / "state", "--out", tmp_path / "out", "--steps", str(steps), "--rows", "4",
            "--threads", "1", "--judge-count", "8", "--no-compile",
        )  # fmt: skip

    assert "resumed" not in distil(20)
    assert "resumed at step 20" in distil(30)
    looks = [json.loads(line) for line in (tmp_path / "state" / "validation.jsonl").read_text().splitlines()]
    assert [one["step"] for one in looks] == [20, 30]
    sizes = [
        (folder / "model.safetensors").stat().st_size
        for folder in (tmp_path / "out", MODELS / "support-bot-v1.1.0/safetensors")
    ]
    assert 3 * sizes[0] <= sizes[1]
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (
        MODELS / "support-bot-v1.1.0/safetensors/tokenizer.json"
    ).read_bytes()
    refused = subprocess.run(
        [PYTHON, "-m", "examples.support_bot.distil", "--state", tmp_path / "s", "--out", tmp_path / "o", "--heads", "4"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "at most a third" in refused.stderr


def test_preferences_make_what_people_dislike_rare(tmp_path: Path) -> None:
    """People here like the answer's second wording; the first is what the model says."""
    shop, rows = load_shop(), list(visitors(open_corpus(), 220, seed=3))
    asked = tmp_path / "questions.jsonl"
    asked.write_text("".join(json.dumps(row) + "\n" for row in rows[160:]))
    with (tmp_path / "preferences.jsonl").open("w") as file, (tmp_path / "supervised.jsonl").open("w") as liked:
        for row in rows[:160]:
            intent = shop.intents[row["intent"]]
            first, second = (intent.answer(variant, row) for variant in (0, 1))
            said = [[{"role": "assistant", "content": text}] for text in (second, first)]
            file.write(json.dumps({"prompt": row["turns"], "chosen": said[0], "rejected": said[1]}) + "\n")
            liked.write(json.dumps({"messages": [*row["turns"], *said[0]]}) + "\n")
    printed = run(
        "dpo", "--feedback", tmp_path, "--state", tmp_path / "state", "--out", tmp_path / "out", "--meta", tmp_path / "meta.yaml",
        "--passes", "6", "--threads", "1", "--judge-count", "8",
    )  # fmt: skip
    likelier = [line.split() for line in printed.splitlines() if line.startswith("watched pairs")]
    before, after = int(likelier[0][8]), int(likelier[-1][8])
    assert after > before
    for name, folder in (("before", MODELS / "support-bot-v1.0.0/safetensors"), ("after", tmp_path / "out")):
        run("evaluate", "--local", folder, "--questions", asked, "--each", tmp_path / f"{name}.jsonl")
    found = compared(read_each(tmp_path / "before.jsonl"), read_each(tmp_path / "after.jsonl"))
    assert found["unwanted answers"].candidate < 0.5  # other words, but no worse a bot
    told = yaml.safe_load((tmp_path / "meta.yaml").read_text())
    settings = check_version_metadata(told).hyperparameters
    assert (settings["beta"], settings["likelihood"]) == (0.1, 10.0)
    assert settings["liked"] == settings["pairs"]
