"""What a run of the probe found."""

from typing import Literal

import msgspec

Source = Literal["journal", "prompts"]


class LayerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one layer, over its heads and the texts' tokens.

    Attributes:
        entropy_nats: mean Shannon entropy of the distributions.
        entropy_ratio: mean of each one's entropy by that of even attention to all that it may look at; between 0 and 1.
        sink_ratio: mean share that the first token gets (Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks").
    """

    layer: int
    entropy_nats: float
    entropy_ratio: float
    sink_ratio: float


class ProbeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a run found.

    Attributes:
        model: NAME:LABEL, or a folder's name.
        digest: of the version; "": it was a folder.
        source: where the requests came from: the journal, or a file of prompts.
        requests, tokens: that were run; `cut` of the requests were longer than was run of them.
        perplexity: of the answers' tokens, all together, with the one that ends an answer; None where no answer was known.
        layers: of attention, over all tokens.
    """

    at: float
    model: str
    digest: str = ""
    source: Source = "prompts"
    requests: int
    tokens: int
    cut: int = 0
    scored: int = 0
    perplexity: float | None = None
    entropy_ratio: float
    sink_ratio: float
    layers: tuple[LayerFigures, ...] = ()
    seconds: float = 0.0
