"""How likely texts are: of a build, by its own graph; and where a canary's secret ranks, by numpy over the weights as they were trained."""

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock.core.errors import BadRequest, NotFound
from penstock.engine.folder import read_folder
from penstock.engine.probe.llama import Llama
from penstock.engine.template import ChatTemplate
from penstock.engine.text import Tokenizer
from penstock.examiner.graph import BuildGraph
from penstock.registry.exposure import candidates_of, exposure_bits, rank_of
from penstock.registry.suites import Item, Memorisation, Perplexity


class Exposed(msgspec.Struct, frozen=True, kw_only=True):
    """Where a canary's secret ranks among its candidates."""

    rank: int
    candidates: int

    @property
    def bits(self) -> float:
        """Its exposure."""
        return exposure_bits(self.rank, self.candidates)


class WeightsReader:
    """The weights and the tokenizer of one version."""

    def __init__(self, weights: Path | None, build: Path) -> None:
        """Reads what is needed of both folders; without weights `exposure` cannot be asked.

        Raises:
            PenstockError: if the model is of a kind that cannot be read.
        """
        self._llama = Llama(weights) if weights is not None else None
        self._build = build
        self._graph: BuildGraph | None = None
        self._tokenizer = Tokenizer(build)
        folder = read_folder(build)
        source = folder.template or self._tokenizer.template
        self._template = ChatTemplate(source, folder.special) if source else None
        self._end = folder.stop_ids[0] if folder.stop_ids else self._tokenizer.eos_id

    def perplexity(self, item: Item) -> float:
        """Of the item's text, with the token that ends an answer where it is a chat's; per token, as the build computes it.

        Raises:
            BadRequest: if the model cannot chat, and the item is one.
            Damaged: if the build cannot be loaded.
        """
        assert isinstance(item.score, Perplexity)
        end = [self._end] if item.messages else []
        tokens, begin = self._tokens(item, item.score.text, end)
        if self._graph is None:
            self._graph = BuildGraph(self._build)
        return float(np.exp(-_logprob(self._graph.forward(tokens), tokens, begin) / (len(tokens) - begin)))

    def exposure(self, item: Item, seed: int) -> Exposed:
        """The rank of the canary's secret among random ones, by the likelihood of the whole frame.

        Raises:
            BadRequest: if the model cannot chat, and the item is one.
            NotFound: if there are no weights.
        """
        canary = item.score
        assert isinstance(canary, Memorisation)
        others = [self._framed(item, canary, one) for one in candidates_of(canary, seed)]
        rank = rank_of(self._framed(item, canary, canary.secret), others)
        return Exposed(rank=rank, candidates=canary.candidates)

    def prefix(self, item: Item) -> list[int]:
        """The tokens up to the canary's secret, the space before it left out: words' tokens begin with theirs."""
        assert isinstance(item.score, Memorisation)
        return self._tokens(item, item.score.frame.partition("{}")[0].rstrip(" "), [])[0]

    def _framed(self, item: Item, canary: Memorisation, secret: str) -> float:
        return self._logprob(*self._tokens(item, canary.frame.replace("{}", secret), []))

    def _tokens(self, item: Item, text: str, end: list[int]) -> tuple[list[int], int]:
        """The tokens of what is asked and of `text` after it, and where the text begins; at least one token comes before it."""
        if item.messages:
            if self._template is None:
                raise BadRequest("The model has no chat template.", code="no_chat_template")
            messages = [{"role": one.role, "content": one.content} for one in item.messages]
            before = self._tokenizer.encode(self._template.render(messages), special=False)
        elif item.prompt:
            before = self._tokenizer.encode(item.prompt, special=True)
        else:
            whole = self._tokenizer.encode(text, special=True)
            return whole + end, 1
        return [*before, *self._tokenizer.encode(text, special=False), *end], len(before)

    def _logprob(self, tokens: list[int], begin: int) -> float:
        if self._llama is None:
            raise NotFound(
                "The version has no folder safetensors, so that no canary's rank can be had.", code="no_weights"
            )
        return _logprob(self._llama.forward(tokens), tokens, begin)


def _logprob(logits: NDArray[np.float32], tokens: list[int], begin: int) -> float:
    """Of the tokens from `begin` on, by the logits of those before each."""
    rows = logits[begin - 1 : -1].astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    chosen = rows[np.arange(len(rows)), tokens[begin:]]
    return float((chosen - np.log(np.exp(rows).sum(axis=1))).sum())
