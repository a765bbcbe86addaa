"""A training that shows how far it is, keeps checkpoints, and goes on from the last one when it is started again."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from examples.support_bot.threads import Threads

_STEP_CAP, _FIRST_CAP, _FIRST = 5.0, 60.0, 20  # seconds that a step, and one of the first, may count
_SAVE_EVERY, _SHOW_EVERY = 120.0, 50  # seconds; steps, where nobody looks on


class Part(Protocol):
    """What a checkpoint holds: a model, an optimiser."""

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Takes back what `state_dict` gave."""
        ...


@dataclass(kw_only=True)
class Progress:
    """Where the run stands; what a checkpoint holds beside the parts."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0


class Loop:
    """The steps of one run, by number or by time.

    Time that the process stood still (a step counts for at most 5 s) is not counted.
    """

    def __init__(
        self, state: Path, parts: dict[str, Part], *, steps: int, time_limit: float, threads: int, device: str
    ) -> None:
        """Reads the checkpoint in the folder `state`, if there is one, into `parts`.

        `steps`, unless it is 0, fixes the length of the run, `time_limit` (seconds) does otherwise.
        """
        self._state, self._parts, self._steps, self._time_limit = state, parts, steps, time_limit
        self.threads = Threads(threads)
        self.progress = Progress()
        state.mkdir(parents=True, exist_ok=True)
        if (state / "checkpoint.pt").exists():
            whole = torch.load(state / "checkpoint.pt", map_location=device, weights_only=True)
            for name, part in parts.items():
                part.load_state_dict(whole[name])
            self.progress = Progress(**whole["progress"])
            print(f"resumed at step {self.progress.step}", flush=True)

    @property
    def share(self) -> float:
        """How much of the run is done: 0 to 1 or a little more."""
        done = self.progress
        return done.step / self._steps if self._steps else done.seconds / self._time_limit

    def run(
        self, step: Callable[[], tuple[float, int]], *, look: Callable[[], None] | None = None, every: float = 420.0
    ) -> None:
        """Calls `step`, which gives its loss and its tokens, to the end of the run; `look` now and then (each `every` seconds) and at the end."""
        saved = looked = time.monotonic()
        smooth = 0.0
        while self.share < 1.0:
            began = time.monotonic()
            torch.set_num_threads(self.threads.choose())
            loss, tokens = step()
            took = time.monotonic() - began
            self.threads.took(took)
            self.progress.step += 1
            self.progress.tokens += tokens
            self.progress.seconds += min(took, _STEP_CAP if self.progress.step > _FIRST else _FIRST_CAP)
            smooth = 0.97 * smooth + 0.03 * loss if smooth else loss
            self._show(smooth)
            if time.monotonic() - saved > _SAVE_EVERY:
                self._save()
                saved = time.monotonic()
            if look is not None and time.monotonic() - looked > every:
                look()
                looked = time.monotonic()
        self._save()
        if look is not None:
            look()

    def _show(self, loss: float) -> None:
        done = self.progress
        if not sys.stdout.isatty() and done.step % _SHOW_EVERY:
            return
        share = min(1.0, self.share)
        left = done.seconds / share - done.seconds if share else 0.0
        print(
            f"\r[{'#' * int(24 * share):<24}] {share:6.1%} step {done.step} loss {loss:.4f} {done.tokens / 1e6:.1f} M tokens "
            f"{done.tokens / max(done.seconds, 1e-9):,.0f}/s left {left / 60:.1f} min, {self.threads.now} threads",
            end="" if sys.stdout.isatty() else "\n",
            flush=True,
        )

    def _save(self) -> None:
        whole = {name: part.state_dict() for name, part in self._parts.items()}
        fresh = self._state / "checkpoint.new"
        torch.save({**whole, "progress": vars(self.progress)}, fresh)
        fresh.replace(self._state / "checkpoint.pt")


def add_flags(parser: argparse.ArgumentParser, *, time_limit: float) -> None:
    """The flags that every training has."""
    parser.add_argument("--state", type=Path, required=True, help="folder for checkpoints, outside the repository")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--time-limit", type=float, default=time_limit, help="seconds of training")
    parser.add_argument("--steps", type=int, default=0, help="steps of training instead of a time")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--judge-every", type=float, default=420.0, help="seconds between looks at the held-out lines")
    parser.add_argument("--judge-count", type=int, default=300, help="held-out questions a look")
