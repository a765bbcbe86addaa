"""Trains the support embedder from nothing: texts that ask the same come close, texts that only look alike do not.

    python -m examples.support_bot.embedder.train --state ../embedder --out examples/support_bot/models/support-embedder-v1.0.0/safetensors

The loss is InfoNCE (van den Oord et al. 2018) over the batch: for each text its partner among all partners and all lookalikes; what asks
the same by its key is left out of the sum. Stopped and started again with the same --state, it goes on from the last
checkpoint. The learning rate follows the share of --time-limit that is used up; time that the process stood still is not counted.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch.nn import functional

from examples.support_bot.embedder.encoder import Encoder, EncoderConfig
from examples.support_bot.embedder.pairs import TRAINED_VOICES, Writer

TOKENIZER = Path(__file__).parent.parent / "models" / "support-bot-v1.1.0" / "safetensors" / "tokenizer.json"
_LONGEST = 96  # tokens of a text in training
_STEP_CAP = 6.0  # seconds that one step may count
_RATE = 1e-3
_TEMPERATURE = 0.05
_SAME_LINE = 0.5


class Trainer:
    """One training run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        torch.manual_seed(args.seed)
        torch.set_num_threads(args.threads)
        self.state: Path = args.state
        self.state.mkdir(parents=True, exist_ok=True)
        self.tokenizer = Tokenizer.from_file(str(TOKENIZER))
        self.model = Encoder(EncoderConfig(vocab_size=self.tokenizer.get_vocab_size()))
        self.writer = Writer(voices=TRAINED_VOICES, held_out=False)
        self.judge = Writer(voices=TRAINED_VOICES, held_out=True)
        self.adam = torch.optim.AdamW(self.model.parameters(), lr=_RATE, betas=(0.9, 0.98), weight_decay=0.01)
        self.step, self.seconds = 0, 0.0
        self._load()

    def run(self) -> None:
        """Trains to the end and writes the model folder."""
        print(f"{sum(p.numel() for p in self.model.parameters()) / 1e6:.2f} M parameters", flush=True)
        saved = time.monotonic()
        smooth = 0.0
        while self.seconds < self.args.time_limit:
            began = time.monotonic()
            loss = self._step()
            self.seconds += min(time.monotonic() - began, _STEP_CAP)
            smooth = 0.97 * smooth + 0.03 * loss if smooth else loss
            if self.step % 25 == 0:
                left = (self.args.time_limit - self.seconds) / 60
                print(f"step {self.step} loss {smooth:.3f} left {left:.1f} min", flush=True)
            if self.step % 300 == 0:
                print(json.dumps(self._judged()), flush=True)
            if time.monotonic() - saved > 60:
                self._save()
                saved = time.monotonic()
        self._save()
        print(json.dumps(self._judged()), flush=True)
        export(self.model, self.args.out)

    def _step(self) -> float:
        rng = random.Random(self.args.seed * 1_000_003 + self.step)
        keys, firsts, seconds, others = batch(self.writer, rng, self.args.rows)
        loss = self._loss(keys, firsts, seconds, others, rng.randrange(64) if rng.random() < 0.3 else 0)
        share = self.seconds / self.args.time_limit
        for group in self.adam.param_groups:
            group["lr"] = _RATE * min(1.0, self.step / 60, (1.0 - share) / 0.6)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.adam.step()
        self.step += 1
        return float(loss.detach())

    def _loss(
        self, keys: list[str], firsts: list[str], seconds: list[str], others: list[str], shift: int
    ) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.args.bf16):
            whole = embed(self.model, self.tokenizer, [*firsts, *seconds, *others], shift).float()
        a, b, c = whole.split((len(firsts), len(seconds), len(others)))
        numbers = {key: at for at, key in enumerate(dict.fromkeys(keys))}
        key = torch.tensor([numbers[k] for k in keys])
        same = (key[:, None] == key[None, :]) & ~torch.eye(len(keys), dtype=torch.bool)
        near = (a @ b.T / _TEMPERATURE).masked_fill(same, -1e4)
        far = a @ c.T / _TEMPERATURE
        target = torch.arange(len(keys))
        forth = functional.cross_entropy(torch.cat((near, far), 1), target)
        back = functional.cross_entropy(near.T, target)
        return 0.5 * (forth + back)

    @torch.no_grad()
    def _judged(self) -> dict[str, float]:
        """On held-out lines of the voices that are trained on: is the partner nearer than its lookalike and than all others?"""
        keys, firsts, seconds, others = batch(self.judge, random.Random(7), 256)
        a, b, c = embed(self.model, self.tokenizer, [*firsts, *seconds, *others], 0).split(256)
        numbers = {key: at for at, key in enumerate(dict.fromkeys(keys))}
        key = torch.tensor([numbers[k] for k in keys])
        same = key[:, None] == key[None, :]
        scores = a @ b.T
        own = scores.diagonal()
        best = scores.masked_fill(same, -1).max(1).values
        return {
            "step": self.step,
            "before_others": round(float((own > best).float().mean()), 4),
            "before_lookalike": round(float((own > (a * c).sum(1)).float().mean()), 4),
            "own": round(float(own.mean()), 3),
            "best_other": round(float(best.mean()), 3),
            "lookalike": round(float((a * c).sum(1).mean()), 3),
        }

    def _save(self) -> None:
        whole = {
            "model": self.model.state_dict(),
            "adam": self.adam.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        fresh = self.state / "checkpoint.new"
        torch.save(whole, fresh)
        fresh.replace(self.state / "checkpoint.pt")

    def _load(self) -> None:
        path = self.state / "checkpoint.pt"
        if path.exists():
            whole: dict[str, Any] = torch.load(path, weights_only=True)
            self.model.load_state_dict(whole["model"])
            self.adam.load_state_dict(whole["adam"])
            self.step, self.seconds = whole["step"], whole["seconds"]
            print(f"resumed at step {self.step}", flush=True)


def batch(writer: Writer, rng: random.Random, rows: int) -> tuple[list[str], list[str], list[str], list[str]]:
    """Keys, texts, their partners, and a lookalike of each."""
    keys, firsts, seconds, others = [], [], [], []
    for _ in range(rows):
        line = writer.line(rng)
        slots = writer.slots(line, rng)
        first = writer.text(line, slots, rng)
        keys.append(first.key)
        firsts.append(first.text)
        seconds.append(writer.text(writer.like(line, rng, same_line=_SAME_LINE), slots, rng).text)
        others.append(writer.lookalike(line, slots, rng))
    return keys, firsts, seconds, others


def embed(model: Encoder, tokenizer: Tokenizer, texts: list[str], shift: int) -> torch.Tensor:
    """Unit vectors [texts, hidden], in the order of the texts; computed in groups of like length."""
    found = [encoding.ids[:_LONGEST] for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    order = sorted(range(len(found)), key=lambda at: len(found[at]))
    parts = []
    for start in range(0, len(order), 96):
        rows = [found[at] for at in order[start : start + 96]]
        width = max(8, -(-max(map(len, rows)) // 8) * 8)
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        parts.append(model(ids, mask, shift))
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(parts)[back]


def export(model: Encoder, folder: Path) -> None:
    """Writes the folder in the layout of Hugging Face's BertModel and of sentence-transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: p.detach().half().contiguous() for name, p in model.named_parameters()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    files: dict[str, Any] = {
        "config.json": {**model.config.to_dict(), "torch_dtype": "float16"},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": model.config.max_position_embeddings,
            "pad_token": "<|pad|>",
            "clean_up_tokenization_spaces": False,
        },
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": model.config.hidden_size,
            "pooling_mode_mean_tokens": True,
        },
    }
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, required=True, help="folder for checkpoints, outside the repository")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--time-limit", type=float, default=1200.0, help="seconds of training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=128, help="pairs a step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-bf16", dest="bf16", action="store_false")
    Trainer(parser.parse_args()).run()


if __name__ == "__main__":
    main()
