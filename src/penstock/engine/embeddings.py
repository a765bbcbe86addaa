"""`POST /v1/embeddings`: OpenAI's body and answer around an embedder."""

import asyncio
import time
from array import array
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from penstock.core.engine_phases import EnginePhases
from penstock.core.errors import BadRequest
from penstock.engine.embedder import Embedder
from penstock.engine.face import JSON, Face
from penstock.engine.folder import ModelFolder
from penstock.engine.stats import EngineCollector
from penstock.engine.text import Tokenizer
from penstock.engine.wrong_fields import wrong_field
from penstock.net.reply import Reply
from penstock.net.request import Request
from penstock.wire import phases

MOST_INPUTS = 2048  # of one request, as OpenAI has it
MOST_TOKENS = 65536  # of all inputs of one request
_BESIDE = 16384  # characters of one request; more are tokenised beside the event loop


class EmbeddingBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request's body. `user` changes nothing."""

    model: Annotated[str, Meta(min_length=1)]
    input: str | list[Any]  # a text, texts, token ids, or lists of them
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None


_decode = msgspec.json.Decoder(EmbeddingBody).decode
_encode = msgspec.json.Encoder().encode


def read_embedding(body: bytes) -> EmbeddingBody:
    """The request that `body` makes.

    Raises:
        BadRequest: naming the field that is wrong.
    """
    try:
        return _decode(body)
    except msgspec.ValidationError as error:
        raise wrong_field(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"The body is not JSON: {error}.", code="invalid_json") from None


def inputs_of(body: EmbeddingBody) -> list[str] | list[list[int]]:
    """Texts, or lists of token ids.

    Raises:
        BadRequest: if there are none, too many, or of both kinds.
    """
    given: list[Any] = (
        [body.input] if isinstance(body.input, str) or any(type(item) is int for item in body.input) else body.input
    )
    if not given or not all(given):
        raise BadRequest("input is empty: give at least one character or token in each.", param="input")
    if len(given) > MOST_INPUTS:
        raise BadRequest(f"input holds {len(given)} texts, and {MOST_INPUTS} are the most.", param="input")
    try:
        if isinstance(given[0], str):
            return msgspec.convert(given, list[str])
        return msgspec.convert(given, list[list[int]])
    except msgspec.ValidationError:
        raise BadRequest(
            "input is wrong: give a text, texts, token ids, or lists of token ids.", param="input"
        ) from None


class EmbeddingService:
    """Answers HTTP requests for one embedder.

    Args:
        name: what the model is called.
        strict: refuse requests for a model of another name.

    Attributes:
        face: the routes, this answer among them.
    """

    def __init__(
        self, embedder: Embedder, folder: ModelFolder, tokenizer: Tokenizer, *, name: str, strict: bool
    ) -> None:
        self._embedder = embedder
        self._folder = folder
        self._tokenizer = tokenizer
        writes = "makes embeddings and writes no texts; ask one that does"
        self.face = Face(
            folder,
            name=name,
            strict=strict,
            ready=lambda: embedder.ready,
            collector=EngineCollector(embedder.stats, name, lambda: (embedder.running, embedder.waiting, 0.0)),
            posts={"/v1/embeddings": self._answer},
            refused={"/v1/chat/completions": writes, "/v1/completions": writes},
        )

    async def _answer(self, request: Request, reply: Reply) -> None:
        body = read_embedding(request.body)
        self.face.check_model(body.model)
        if body.dimensions is not None and body.dimensions != self._embedder.width:
            raise BadRequest(
                f"dimensions asks for {body.dimensions}, and this model's vectors have {self._embedder.width or 'others'}; "
                "they cannot be shortened.",
                code="unsupported_parameter",
                param="dimensions",
            )
        texts = await self._tokens(inputs_of(body))
        submitted_ns = time.monotonic_ns()
        done = await self._embedder.embed(texts, request.received_ns)
        answer = document(done.vectors, self.face.name, sum(map(len, texts)), body.encoding_format == "base64")
        head = JSON
        if phases.HEADER in request.headers:
            took = EnginePhases(
                preprocess=submitted_ns - request.received_ns,
                queue=done.began_ns - submitted_ns,
                prefill=done.ended_ns - done.began_ns,
                postprocess=time.monotonic_ns() - done.ended_ns,
            )
            head = [*JSON, (phases.HEADER, phases.phases_value(took))]
        reply.send(200, head, answer)

    async def _tokens(self, inputs: list[str] | list[list[int]]) -> list[list[int]]:
        if sum(len(text) for text in inputs) > _BESIDE:
            texts = await asyncio.to_thread(self._encoded, inputs)
        else:
            texts = self._encoded(inputs)
        for at, tokens in enumerate(texts):
            where = f"input[{at}]" if len(texts) > 1 else "input"
            if not tokens:
                raise BadRequest(f"{where} is empty: it has no tokens.", param="input")
            bad = next((token for token in tokens if not 0 <= token < self._tokenizer.size), None)
            if bad is not None:
                raise BadRequest(f"{where} holds {bad}, and tokens are 0 to {self._tokenizer.size - 1}.", param="input")
            if len(tokens) > self._folder.context:
                raise BadRequest(
                    f"This model reads {self._folder.context} tokens, and {where} has {len(tokens)}.",
                    code="context_length_exceeded",
                    param="input",
                )
        total = sum(map(len, texts))
        if total > MOST_TOKENS:
            raise BadRequest(f"input has {total} tokens together, and {MOST_TOKENS} are the most.", param="input")
        return texts

    def _encoded(self, inputs: list[str] | list[list[int]]) -> list[list[int]]:
        return [self._tokenizer.encode(text, special=True) if isinstance(text, str) else text for text in inputs]


def document(vectors: list[bytes], model: str, tokens: int, packed: bool) -> bytes:
    """The answer: vectors as lists of numbers, or `packed` as base64 of little-endian float32."""
    # The encoder writes bytes as base64.
    data = [
        {"object": "embedding", "index": at, "embedding": vector if packed else _numbers(vector)}
        for at, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _encode({"object": "list", "data": data, "model": model, "usage": usage})


def _numbers(vector: bytes) -> list[float]:
    return array("f", vector).tolist()
