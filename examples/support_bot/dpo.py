"""Trains a version by what people preferred: direct preference optimisation (Rafailov et al. 2023; losses.py), beside the likelihood of what they liked.

    python -m examples.support_bot.dpo --feedback ../feedback --state ../dpo --out ../taught/safetensors --meta ../taught.yaml

The folder is that of `penstock feedback export`: pairs, and answers that people were content with or that were put right. The reference, which
stays as it is, and the beginning are the version of --from. One conversation of ten, by its hash, is kept from training: of these the share of
pairs whose liked answer has become the likelier one is printed, beside the
figures on held-out phrasing lines. Stopped and started again with the same --state, it goes on from the last checkpoint;
the same seed, lines and --passes give the same run each time. A GPU is used if there is one.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from examples.support_bot.folders import read_model, write_model
from examples.support_bot.generator import open_corpus
from examples.support_bot.loop import Loop, add_flags
from examples.support_bot.losses import answer_log_probability, likelihood, preference
from examples.support_bot.model import Llama
from examples.support_bot.preferences import (
    FILE,
    SUPERVISED,
    Liked,
    Pair,
    Rows,
    alike,
    arranged,
    conversations,
    drawn,
    laid_out,
    read_liked,
    read_pairs,
)
from examples.support_bot.validation import look

BEGINNING = Path(__file__).parent / "models" / "support-bot-v1.0.0" / "safetensors"
_LONGEST = 256  # tokens of a conversation with its answer
_WARM = 0.1  # of the run: learning rate up; then down to zero in a straight line
_ALIKE = 8  # rows, or pairs, of about one length that are computed together
_CLIP = 1.0  # most norm of a gradient


class Preferrer:
    """One run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(args.seed)
        torch.set_num_threads(args.threads)
        self.model, self.coder = read_model(args.beginning)
        self.model.to(self.device)
        self.reference = copy.deepcopy(self.model).requires_grad_(requires_grad=False)
        pairs = read_pairs(args.feedback / FILE, self.coder, longest=_LONGEST)
        liked = read_liked(args.feedback / SUPERVISED, self.coder, longest=_LONGEST) if args.likelihood else []
        self.liked = [one for one in liked if not one.watched]
        self.trained = [pair for pair in pairs if not pair.watched]
        self.watched = [pair for pair in pairs if pair.watched]
        if not self.trained:
            raise SystemExit(f"{args.feedback} holds no pair of up to {_LONGEST} tokens to train on.")
        print(
            f"{len(self.trained)} pairs of {conversations(self.trained)} conversations, {len(self.watched)} watched, "
            f"{len(self.liked)} liked answers, {self.device}",
            flush=True,
        )
        self.adam = torch.optim.AdamW(self.model.parameters(), lr=args.rate, betas=(0.9, 0.95), weight_decay=0.0)
        self.steps = args.steps or max(1, args.passes * (len(self.trained) // min(args.pairs, len(self.trained))))
        self.judge = open_corpus(held_out=True)
        parts = {"model": self.model, "adam": self.adam}
        self.loop = Loop(
            args.state, parts, steps=self.steps, time_limit=args.time_limit, threads=args.threads, device=self.device
        )

    def run(self) -> None:
        """Trains to the end, writes the model folder and what the version says of itself."""
        self._judge()
        self.loop.run(self._step, look=self._judge, every=self.args.judge_every)
        write_model(self.args.out, self.model, self.coder)
        if self.args.meta:
            self.args.meta.write_text(
                yaml.safe_dump(self._metadata(), sort_keys=False, allow_unicode=True), encoding="utf-8"
            )

    def _step(self) -> tuple[float, int]:
        some = drawn(self.trained, self.args.pairs, self.loop.progress.step, self.args.seed)
        rate = min(1.0, self.loop.share / _WARM + 0.05, (1.0 - self.loop.share) / (1.0 - _WARM))
        for group in self.adam.param_groups:
            group["lr"] = self.args.rate * rate
        liked = drawn(self.liked, self.args.liked, self.loop.progress.step, self.args.seed) if self.liked else []
        loss = sum(self._prefer(part, len(part) / len(some)) for part in alike(some, _ALIKE))
        tokens = sum(len(one.answer) for one in liked)
        loss += self.args.likelihood * sum(self._like(part, tokens) for part in alike(liked, _ALIKE))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP)
        self.adam.step()
        self.adam.zero_grad()
        return loss, sum(one.length for one in (*some, *liked))

    def _prefer(self, pairs: list[Pair], share: float) -> float:
        """Adds `share` of the gradient of the preference loss, and gives as much of the loss."""
        rows = arranged(pairs)
        logits, targets, member = self._answers(self.model, rows)
        sums, by_logits = answer_log_probability(torch, logits.detach(), targets, member)
        chosen, rejected = (sums - self._sums(self.reference, rows)).view(2, -1)
        loss, by_chosen = preference(torch, chosen, rejected, beta=self.args.beta)
        logits.backward(share * (torch.cat((by_chosen, -by_chosen)) @ member)[:, None] * by_logits)
        return share * float(loss)

    def _like(self, liked: list[Liked], tokens: int) -> float:
        """Adds the gradient of these answers' part in the likelihood of `tokens`, by its weight; gives the part without it."""
        logits, targets, member = self._answers(self.model, laid_out([(one.prompt, one.answer) for one in liked]))
        sums, by_logits = answer_log_probability(torch, logits.detach(), targets, member)
        loss, by_sums = likelihood(torch, sums, tokens)
        logits.backward(self.args.likelihood * (by_sums @ member)[:, None] * by_logits)
        return float(loss)

    @torch.no_grad()
    def _sums(self, model: Llama, rows: Rows) -> Tensor:
        """Log-probabilities of the rows' answers."""
        return answer_log_probability(torch, *self._answers(model, rows))[0]

    def _answers(self, model: Llama, arrays: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Logits at the answers' tokens, these tokens, and whose they are: what `answer_log_probability` takes."""
        ids, targets, weights = (torch.from_numpy(array).to(self.device) for array in arrays)
        features = answer_features(model, ids, weights > 0)
        rows = weights.nonzero()[:, 0]
        member = (rows == torch.arange(len(ids), device=self.device)[:, None]).float()
        return model.logits(features), targets[weights > 0], member

    def _likelier(self, model: Llama) -> int:
        """Of how many watched pairs the liked answer is the likelier one."""
        count = 0
        for at in range(0, len(self.watched), self.args.pairs):
            chosen, rejected = self._sums(model, arranged(self.watched[at : at + self.args.pairs])).view(2, -1)
            count += int((chosen > rejected).sum())
        return count

    def _judge(self) -> None:
        if self.watched:
            now, before = self._likelier(self.model), self._likelier(self.reference)
            told = f"{now} of {len(self.watched)}, by the reference {before}"
            print(f"\nwatched pairs whose liked answer is the likelier: {told}", end="")
        count, step = self.args.judge_count, self.loop.progress.step
        look(self.model, self.coder, self.judge, count=count, state=self.args.state, step=step)

    def _metadata(self) -> dict[str, Any]:
        args = self.args
        return {
            "description": "Taught by what people preferred, by direct preference optimisation.",
            "task": "text-generation",
            "languages": ["en"],
            "licence": "apache-2.0",
            "intended_use": "To show how feedback becomes the next version.",
            "out_of_scope": "A real shop's customers.",
            "training": {
                "description": f"{len(self.trained)} pairs and {len(self.liked)} liked answers of exported feedback.",
                "code": "examples/support_bot/dpo.py",
                **({"data": [{"dataset": args.dataset}]} if args.dataset else {}),
            },
            "hyperparameters": {
                "beta": args.beta,
                "likelihood": args.likelihood,
                "rate": args.rate,
                "pairs_a_step": args.pairs,
                "steps": self.loop.progress.step,
                "liked_a_step": args.liked,
                "pairs": len(self.trained),
                "liked": len(self.liked),
                "seed": args.seed,
            },
        }


def answer_features(model: Llama, ids: Tensor, places: Tensor) -> Tensor:
    """Features at `places` [rows, length] of rows that begin at their first token."""
    length = ids.size(1)
    positions = torch.arange(length, device=ids.device).expand_as(ids)
    mask = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()[None, None]
    return model.features(ids, positions, mask)[places]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser, time_limit=900.0)
    parser.add_argument("--feedback", type=Path, required=True, help="folder of an export")
    parser.add_argument("--from", dest="beginning", type=Path, default=BEGINNING, help="folder with model.safetensors")
    parser.add_argument("--dataset", default="", help="name under which the export was registered, for --meta")
    parser.add_argument("--meta", type=Path, help="file for what the version says of itself, to push it with")
    parser.add_argument("--beta", type=float, default=0.1, help="how dear it is to leave the reference")
    parser.add_argument("--rate", type=float, default=5e-4, help="peak learning rate")
    parser.add_argument("--passes", type=int, default=1, help="through the pairs, where --steps says nothing")
    parser.add_argument("--pairs", type=int, default=10, help="pairs a step")
    parser.add_argument(
        "--likelihood", type=float, default=10.0, help="weight of the liked answers' likelihood; 0: pairs alone"
    )
    parser.add_argument("--liked", type=int, default=24, help="liked answers a step")
    Preferrer(parser.parse_args()).run()


if __name__ == "__main__":
    main()
