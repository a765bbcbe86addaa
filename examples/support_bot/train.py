"""Trains the support bot from nothing: tokenizer, model, Hugging Face folder.

    python -m examples.support_bot.train --state ../train-v1.1.0 --out examples/support_bot/models/support-bot-v1.1.0/safetensors --time-limit 5400

The learning rate follows the share of the time (or of --steps) that is used up and ends at zero, so that a busy machine
gives fewer steps, not a run cut off. Time that the process stood still (a step counts for at most 5 s) is not counted.
Stopped and started again with the same --state, it goes on from the last checkpoint. --steps gives the same run each time.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch._inductor import config as inductor
from torch.nn import functional

from examples.support_bot.batches import Packer
from examples.support_bot.chat import Coder, train_tokenizer
from examples.support_bot.folders import write_model
from examples.support_bot.generator import Mix, open_corpus
from examples.support_bot.loop import Loop, add_flags
from examples.support_bot.model import Llama, ModelConfig, packed_mask, parameters
from examples.support_bot.optim import Muon, trapezoid
from examples.support_bot.validation import look

_MUON_LR, _ADAM_LR = 0.02, 3e-3
_COPY_EARLY, _COPY_LATER, _EARLY = 0.6, 0.06, 0.06
# From this share of the run on: fewer refusals and less noise, as held-out lines showed too many refusals with the first mix.
_LATE, _LATE_MIX = 0.42, Mix(off_topic=0.16, swapped=0.14, clean=0.35)


class Trainer:
    """One training run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(args.seed)
        torch.set_num_threads(args.threads)
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
        parts = {"model": self.model, "muon": self.muon, "adam": self.adam}
        self.loop = Loop(
            self.state, parts, steps=args.steps, time_limit=args.time_limit, threads=args.threads, device=self.device
        )

    def run(self) -> None:
        """Trains to the end and writes the model folder."""
        shape = f"{parameters(self.config) / 1e6:.2f} M parameters, vocabulary {self.config.vocab_size}"
        print(f"{shape}, {self.device}, {self.args.threads} threads", flush=True)
        self.loop.run(self._step, look=self._judge, every=self.args.judge_every)
        write_model(self.args.out, self.model, self.coder)

    def _step(self) -> tuple[float, int]:
        share = self.loop.share
        copying = _COPY_EARLY if share < _EARLY else _COPY_LATER
        if share >= _LATE:
            self.corpus.mix = _LATE_MIX
        arrays = self.packer.batch(self.loop.progress.step, copying)
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
        return float(loss.detach()), int((arrays[3] > 0).sum())

    def _loss(
        self, ids: torch.Tensor, weights: torch.Tensor, positions: torch.Tensor, owners: torch.Tensor
    ) -> torch.Tensor:
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.args.bf16):
            logits = self.model(ids[:, :-1], positions[:, :-1], packed_mask(owners[:, :-1]))
        losses = functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
        weight = weights[:, 1:].flatten()
        return (losses * weight).sum() / weight.sum()

    def _judge(self) -> None:
        count, step = self.args.judge_count, self.loop.progress.step
        look(self.model, self.coder, self.judge, count=count, state=self.state, step=step)

    def _tokenizer(self, seed: int) -> str:
        path = self.state / "tokenizer.json"
        if not path.exists():
            path.write_text(
                train_tokenizer(self.corpus, seed, self.args.vocab, self.args.tokenizer_count).to_str(),
                encoding="utf-8",
            )
        return path.read_text(encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser, time_limit=5400.0)
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
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--no-bf16", dest="bf16", action="store_false")
    Trainer(parser.parse_args()).run()


if __name__ == "__main__":
    main()
