"""One run of the probe: texts in, a record out. It computes beside the traffic and asks nobody for anything."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import numpy as np

from penstock.core.errors import BadRequest, NotFound
from penstock.engine.folder import read_folder
from penstock.engine.probe.attention import AttentionSums
from penstock.engine.probe.llama import Llama
from penstock.engine.probe.record import ProbeRecord, Source
from penstock.engine.template import ChatTemplate
from penstock.engine.text import Tokenizer

Message = tuple[str, str]  # role, text
WEIGHTS = "safetensors"


class Asked(msgspec.Struct, frozen=True):
    """One request: its messages, and the answer if one is known."""

    messages: tuple[Message, ...]
    answer: str = ""


class Probe:
    """One version's weights and tokenizer, ready to run."""

    def __init__(self, folder: Path) -> None:
        """Reads the folder of a version: `safetensors`, and a build that has a tokenizer.

        Raises:
            NotFound: if one of them is not there.
            PenstockError: if the model is of a kind that cannot be run.
        """
        builds = sorted(path.parent for path in folder.glob("*/openvino_tokenizer.xml"))
        if not (folder / WEIGHTS).is_dir() or not builds:
            raise NotFound(
                f"{folder} needs the folder {WEIGHTS}, with the weights, and a build with openvino_tokenizer.xml.",
                hint="Version folders have both; see the registry's layout.",
            )
        self._llama = Llama(folder / WEIGHTS)
        self._tokenizer = Tokenizer(builds[0])
        model = read_folder(builds[0])
        source = model.template or self._tokenizer.template
        self._template = ChatTemplate(source, model.special) if source else None
        self._end = model.stop_ids[0] if model.stop_ids else self._tokenizer.eos_id

    def tokens(self, asked: Asked) -> tuple[list[int], list[int]]:
        """The tokens of the prompt, and those of the answer.

        Raises:
            BadRequest: if the model cannot chat.
        """
        if self._template is None:
            raise BadRequest("The model has no chat template.", code="no_chat_template")
        messages = [{"role": role, "content": text} for role, text in asked.messages]
        prompt = self._tokenizer.encode(self._template.render(messages), special=False)
        answer = [*self._tokenizer.encode(asked.answer, special=False), self._end] if asked.answer else []
        return prompt, answer

    def run(
        self,
        requests: Iterable[Asked],
        *,
        model: str,
        digest: str = "",
        source: Source = "prompts",
        most_tokens: int = 512,
        now: Callable[[], float] = time.time,
        done: Callable[[], None] = lambda: None,
    ) -> ProbeRecord:
        """Runs all of `requests`, the first `most_tokens` tokens of each; `done` is called after each.

        Raises:
            BadRequest: if there is none.
        """
        begun = time.monotonic()
        sums = AttentionSums(self._llama.config.num_hidden_layers)
        count = tokens = cut = scored = 0
        nats = 0.0
        for asked in requests:
            prompt, answer = self.tokens(asked)
            whole = prompt + answer
            text = whole[:most_tokens]
            logits = self._llama.forward(text, sums.see)
            if len(text) > len(prompt):
                scored += len(text) - len(prompt)
                nats += _nats(logits[len(prompt) - 1 : -1], text[len(prompt) :])
            count, tokens, cut = count + 1, tokens + len(text), cut + (len(text) < len(whole))
            done()
        if not count:
            raise BadRequest("There is no request to run.", code="nothing_to_probe")
        layers = sums.figures()
        return ProbeRecord(
            at=now(),
            model=model,
            digest=digest,
            source=source,
            requests=count,
            tokens=tokens,
            cut=cut,
            scored=scored,
            perplexity=float(np.exp(nats / scored)) if scored else None,
            entropy_ratio=_mean([one.entropy_ratio for one in layers]),
            sink_ratio=_mean([one.sink_ratio for one in layers]),
            layers=tuple(layers),
            seconds=time.monotonic() - begun,
        )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _nats(logits: np.ndarray, chosen: list[int]) -> float:
    """The negative log-probability of the `chosen` tokens, together."""
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    return float((np.log(np.exp(rows).sum(axis=1)) - rows[np.arange(len(chosen)), chosen]).sum())
