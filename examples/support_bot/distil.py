"""Distils a trained model into a smaller one: thinned, and what that spoilt learnt again from the teacher.

    python -m examples.support_bot.distil --state ../distil --out examples/support_bot/models/support-bot-v1.1.0-distilled/safetensors

The student begins as a part of the teacher (thinning.py): of each layer the --heads attention heads and the --ffn neurons that the
teacher's answers need most, with what they write fitted to make up for the rest. Then it learns from the teacher's soft targets and the right answers (Hinton, Vinyals and Dean 2015;
losses.py), on conversations drawn as in training. Tokenizer and width are the teacher's. Stopped and started again with the same
--state, it goes on from the last checkpoint; --steps gives the same run each time. A GPU is used if there is one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._inductor import config as inductor

from examples.support_bot.batches import Packer
from examples.support_bot.folders import read_model, write_model
from examples.support_bot.generator import open_corpus
from examples.support_bot.loop import Loop, add_flags
from examples.support_bot.losses import distillation
from examples.support_bot.model import Llama, packed_mask, parameters
from examples.support_bot.optim import Muon, trapezoid
from examples.support_bot.thinning import Batch, shaped, thinned
from examples.support_bot.validation import look

TEACHER = Path(__file__).parent / "models" / "support-bot-v1.1.0" / "safetensors"
MOST = 1 / 3  # of the teacher's weights
_COPYING = 0.1  # of the documents are pure copy tasks
_CHOSEN_ON, _FITTED_ON = 8, 6  # rows that heads and neurons are chosen on; batches that what they write is fitted on
_WARM, _DECAY = 0.03, 0.6  # of the run: learning rate up, and down to zero


class Distiller:
    """One run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(args.seed)
        torch.set_num_threads(args.threads)
        inductor.cpp.dynamic_threads = True
        self.teacher, self.coder = read_model(args.teacher)
        self.teacher.to(self.device).requires_grad_(requires_grad=False)
        self.student = self._beginning()
        size, whole = parameters(self.student.config), parameters(self.teacher.config)
        print(f"{size / 1e6:.2f} M of {whole / 1e6:.2f} M parameters ({size / whole:.1%}), {self.device}", flush=True)
        if size > MOST * whole:
            raise SystemExit(
                "A student has at most a third of its teacher's parameters: lower --ffn or --heads, or --keep fewer layers."
            )
        matrices = [p for n, p in self.student.named_parameters() if p.ndim == 2 and "embed" not in n]
        others = [p for n, p in self.student.named_parameters() if p.ndim != 2 or "embed" in n]
        self.muon = Muon(matrices, lr=args.muon_rate, weight_decay=args.weight_decay)
        self.adam = torch.optim.AdamW(others, lr=args.adam_rate, betas=(0.9, 0.95), weight_decay=0.0)
        self.taught, self.learnt = self._features(self.teacher), self._features(self.student)
        self.packer, self.judge = self._packer(args.seed, rows=args.rows), open_corpus(held_out=True)
        parts = {"student": self.student, "muon": self.muon, "adam": self.adam}
        self.loop = Loop(
            args.state, parts, steps=args.steps, time_limit=args.time_limit, threads=args.threads, device=self.device
        )

    def run(self) -> None:
        """Trains to the end and writes the model folder."""
        self.loop.run(self._step, look=self._judge, every=self.args.judge_every)
        write_model(self.args.out, self.student, self.coder)
        ours, theirs = ((folder / "model.safetensors").stat().st_size for folder in (self.args.out, self.args.teacher))
        print(f"{self.args.out}: {ours} bytes of weights, {ours / theirs:.1%} of the teacher's {theirs}", flush=True)

    def _beginning(self) -> Llama:
        args = self.args
        keep = args.keep or list(range(self.teacher.config.num_hidden_layers))
        if (args.state / "checkpoint.pt").exists():  # what is read from there needs no beginning
            return shaped(self.teacher, len(keep), args.heads, args.ffn)
        few = Batch.of(self._packer(args.seed + 1, rows=_CHOSEN_ON).batch(0, 0.0), self.device)
        packer = self._packer(args.seed + 2, rows=args.rows)
        batches = [Batch.of(packer.batch(step, 0.0), self.device) for step in range(_FITTED_ON)]
        return thinned(self.teacher, few, batches, keep=keep, heads=args.heads, ffn=args.ffn)

    def _step(self) -> tuple[float, int]:
        batch = Batch.of(self.packer.batch(self.loop.progress.step, _COPYING), self.device)
        rate = trapezoid(self.loop.share, _WARM, _DECAY)
        for optimiser, peak in ((self.muon, self.args.muon_rate), (self.adam, self.args.adam_rate)):
            for group in optimiser.param_groups:
                group["lr"] = peak * rate
        given = batch.ids, batch.positions, batch.owners
        with torch.no_grad():
            teacher = self._logits(self.teacher, self.taught(*given)[batch.answers]).float()
        student = self._logits(self.student, self.learnt(*given)[batch.answers])
        loss, gradient = distillation(
            torch,
            student.detach().float(),
            teacher,
            batch.targets,
            batch.weights,
            temperature=self.args.temperature,
            mix=self.args.mix,
        )
        student.backward(gradient.to(student.dtype))
        self.muon.step()
        self.adam.step()
        self.muon.zero_grad()
        self.adam.zero_grad()
        return float(loss), int((batch.owners > 0).sum())

    def _logits(self, model: Llama, features: Tensor) -> Tensor:
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.args.bf16):
            return model.logits(features)

    def _features(self, model: Llama) -> Any:
        def features(ids: Tensor, positions: Tensor, owners: Tensor) -> Tensor:
            with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.args.bf16):
                return model.features(ids, positions, packed_mask(owners))

        return torch.compile(features) if self.args.compile else features

    def _packer(self, seed: int, *, rows: int) -> Packer:
        return Packer(open_corpus(), self.coder, rows=rows, length=self.args.length, seed=seed)

    def _judge(self) -> None:
        count, step = self.args.judge_count, self.loop.progress.step
        look(self.student, self.coder, self.judge, count=count, state=self.args.state, step=step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser, time_limit=1500.0)
    parser.add_argument("--teacher", type=Path, default=TEACHER, help="folder with model.safetensors")
    parser.add_argument(
        "--keep",
        type=lambda text: [int(number) for number in text.split(",")],
        metavar="N,N,...",
        help="layers of the teacher, from 0 on, separated by commas [default: all]",
    )
    parser.add_argument("--heads", type=int, default=2, help="attention heads of a layer")
    parser.add_argument("--ffn", type=int, default=96, help="neurons of a layer's MLP")
    parser.add_argument("--temperature", type=float, default=2.0, help="of the soft targets")
    parser.add_argument("--mix", type=float, default=0.8, help="share of the soft targets in the loss, 0 to 1")
    parser.add_argument("--rows", type=int, default=16, help="rows a step")
    parser.add_argument("--length", type=int, default=192, help="tokens a row")
    parser.add_argument("--muon-rate", type=float, default=0.004)
    parser.add_argument("--adam-rate", type=float, default=6e-4)
    parser.add_argument("--weight-decay", type=float, default=0.02, help="of the matrices under Muon")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--no-bf16", dest="bf16", action="store_false")
    Distiller(parser.parse_args()).run()


if __name__ == "__main__":
    main()
