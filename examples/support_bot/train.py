"""Trains the support bot from nothing: tokenizer, model, Hugging Face folder.

    python -m examples.support_bot.train --state ../train-v1.1.0 --out examples/support_bot/models/support-bot-v1.1.0/safetensors --time-limit 5400

The learning rate follows the share of the time (or of --steps) that is used up and ends at zero, so that a busy machine
gives fewer steps, not a run cut off. Time that the process stood still (a step counts for at most 5 s) is not counted.
Stopped and started again with the same --state, it goes on from the last checkpoint. --steps gives the same run each time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch._inductor import config as inductor
from torch.nn import functional

from examples.support_bot.batches import Packer
from examples.support_bot.chat import Coder, train_tokenizer, write_files
from examples.support_bot.generator import Mix, open_corpus
from examples.support_bot.model import Llama, ModelConfig, parameters
from examples.support_bot.optim import Muon, trapezoid
from examples.support_bot.threads import Threads
from examples.support_bot.validation import validate

_STEP_CAP = 5.0  # seconds that one step may count
_MUON_LR, _ADAM_LR = 0.02, 3e-3
_COPY_EARLY, _COPY_LATER, _EARLY = 0.6, 0.06, 0.06
# From this share of the run on: fewer refusals and less noise, as held-out lines showed too many refusals with the first mix.
_LATE, _LATE_MIX = 0.42, Mix(off_topic=0.16, swapped=0.14, clean=0.35)


@dataclass(kw_only=True)
class Progress:
    """Where the run stands; what a checkpoint holds beside the weights."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0


class Trainer:
    """One training run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(args.seed)
        torch.set_num_threads(args.threads)
        self.threads = Threads(args.threads)
        inductor.cpp.dynamic_threads = True
        voices = tuple(args.voices.split(",")) if args.voices else None
        self.corpus = open_corpus(voices=voices)
        self.judge = open_corpus(held_out=True)
        self.state: Path = args.state
        self.state.mkdir(parents=True, exist_ok=True)
        self.coder = Coder(self._tokenizer(args.seed))
        self.config = ModelConfig(
            vocab_size=self.coder.plain.get_vocab_size(),
            hidden_size=args.hidden,
            intermediate_size=args.ffn,
            num_hidden_layers=args.layers,
            num_attention_heads=args.heads,
        )
        self.model = Llama(self.config).to(self.device)
        matrices = [p for n, p in self.model.named_parameters() if p.ndim == 2 and "embed" not in n]
        others = [p for n, p in self.model.named_parameters() if p.ndim != 2 or "embed" in n]
        self.muon = Muon(matrices, lr=_MUON_LR, weight_decay=args.weight_decay)
        self.adam = torch.optim.AdamW(others, lr=_ADAM_LR, betas=(0.9, 0.95), weight_decay=0.0)
        self.forward: Any = torch.compile(self._loss) if args.compile else self._loss
        self.packer = Packer(self.corpus, self.coder, rows=args.rows, length=args.length, seed=args.seed)
        self.progress = Progress()
        self._load()

    def run(self) -> None:
        """Trains to the end and writes the model folder."""
        shape = f"{parameters(self.config) / 1e6:.2f} M parameters, vocabulary {self.config.vocab_size}"
        print(f"{shape}, {self.device}, {self.args.threads} threads", flush=True)
        saved = judged = time.monotonic()
        smooth = 0.0
        while self._share() < 1.0:
            began = time.monotonic()
            torch.set_num_threads(self.threads.choose())
            loss = self._step()
            self.threads.took(time.monotonic() - began)
            self.progress.seconds += min(time.monotonic() - began, _STEP_CAP if self.progress.step > 20 else 60.0)
            smooth = loss if not smooth else 0.97 * smooth + 0.03 * loss
            self._show(smooth)
            now = time.monotonic()
            if now - saved > 120:
                self._save()
                saved = now
            if now - judged > self.args.judge_every:
                self._judge()
                judged = time.monotonic()
        self._save()
        self._judge()
        self.export(self.args.out)

    def export(self, folder: Path) -> None:
        """Writes config, tokenizer and weights (bf16) in the Hugging Face layout."""
        write_files(folder, self.coder.plain.to_str(), self.config.to_dict())
        weights = {name: p.detach().to("cpu", torch.bfloat16).contiguous() for name, p in self.model.named_parameters()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    def _step(self) -> float:
        share = self._share()
        copying = _COPY_EARLY if share < _EARLY else _COPY_LATER
        if share >= _LATE:
            self.corpus.mix = _LATE_MIX
        arrays = self.packer.batch(self.progress.step, copying)
        ids, weights, positions, owners = (torch.from_numpy(array).to(self.device) for array in arrays)
        rate = trapezoid(share)
        for group in self.muon.param_groups:
            group["lr"] = _MUON_LR * rate
        for group in self.adam.param_groups:
            group["lr"] = _ADAM_LR * rate
        loss = self.forward(ids, weights, positions, owners)
        loss.backward()
        self.muon.step()
        self.adam.step()
        self.muon.zero_grad()
        self.adam.zero_grad()
        self.progress.step += 1
        self.progress.tokens += int((arrays[3] > 0).sum())
        return float(loss.detach())

    def _loss(
        self, ids: torch.Tensor, weights: torch.Tensor, positions: torch.Tensor, owners: torch.Tensor
    ) -> torch.Tensor:
        owner = owners[:, :-1]
        length = owner.size(1)
        causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
        mask = (owner[:, None, :, None] == owner[:, None, None, :]) & causal
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.args.bf16):
            logits = self.model(ids[:, :-1], positions[:, :-1], mask)
        losses = functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
        weight = weights[:, 1:].flatten()
        return (losses * weight).sum() / weight.sum()

    def _share(self) -> float:
        if self.args.steps:
            return self.progress.step / self.args.steps
        return self.progress.seconds / self.args.time_limit

    def _show(self, loss: float) -> None:
        done = self.progress
        if sys.stdout.isatty() or done.step % 50 == 0:
            share = min(1.0, self._share())
            left = done.seconds / share - done.seconds if share else 0.0
            bar = "#" * int(24 * share)
            speed = done.tokens / max(done.seconds, 1e-9)
            print(
                f"\r[{bar:<24}] {share:6.1%} step {done.step} loss {loss:.4f} {done.tokens / 1e6:.1f} M tokens {speed:,.0f}/s "
                f"left {left / 60:.1f} min, {self.threads.now} threads",
                end="" if sys.stdout.isatty() else "\n",
                flush=True,
            )

    def _judge(self) -> None:
        began = time.monotonic()
        self.model.eval()
        figures = validate(self.model, self.coder, self.judge, count=self.args.judge_count)
        self.model.train()
        shown = ", ".join(f"{name} {value:.1%}" for name, value in figures.items())
        print(f"\nheld-out lines: {shown} ({time.monotonic() - began:.0f} s)", flush=True)
        with (self.state / "validation.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.progress.step, "tokens": self.progress.tokens, **figures}) + "\n")

    def _tokenizer(self, seed: int) -> str:
        path = self.state / "tokenizer.json"
        if not path.exists():
            path.write_text(
                train_tokenizer(self.corpus, seed, self.args.vocab, self.args.tokenizer_count).to_str(),
                encoding="utf-8",
            )
        return path.read_text(encoding="utf-8")

    def _save(self) -> None:
        whole = {
            "model": self.model.state_dict(),
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "progress": vars(self.progress),
        }
        fresh = self.state / "checkpoint.new"
        torch.save(whole, fresh)
        fresh.replace(self.state / "checkpoint.pt")

    def _load(self) -> None:
        path = self.state / "checkpoint.pt"
        if path.exists():
            whole = torch.load(path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(whole["model"])
            self.muon.load_state_dict(whole["muon"])
            self.adam.load_state_dict(whole["adam"])
            self.progress = Progress(**whole["progress"])
            print(f"resumed at step {self.progress.step}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, required=True, help="folder for checkpoints, outside the repository")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--time-limit", type=float, default=5400.0, help="seconds of training")
    parser.add_argument("--steps", type=int, default=0, help="steps of training instead of a time")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--voices", default="", help="train on these writers' phrasings only, separated by commas")
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--ffn", type=int, default=704)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--rows", type=int, default=32, help="rows a step")
    parser.add_argument("--length", type=int, default=256, help="tokens a row")
    parser.add_argument("--weight-decay", type=float, default=0.1, help="of the matrices under Muon")
    parser.add_argument(
        "--tokenizer-count", type=int, default=40000, help="conversations that the tokenizer is trained on"
    )
    parser.add_argument("--judge-every", type=float, default=420.0, help="seconds between looks at the held-out lines")
    parser.add_argument("--judge-count", type=int, default=300, help="held-out questions a look")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--no-bf16", dest="bf16", action="store_false")
    Trainer(parser.parse_args()).run()


if __name__ == "__main__":
    main()
