"""The engine's HTTP face: routes, and one answer from request to last byte."""

import asyncio
import os
import random
import time

import msgspec

from penstock.core.engine_phases import EnginePhases
from penstock.core.errors import BadRequest, PenstockError
from penstock.core.exchange import Quality
from penstock.engine.asks import Ask, read_chat, read_completion
from penstock.engine.engine import Answer, Engine
from penstock.engine.face import JSON, Face
from penstock.engine.folder import ModelFolder
from penstock.engine.messages import Sampling
from penstock.engine.processing import Processor
from penstock.engine.quality import Examination, quality_of_all, refusals_of
from penstock.engine.replies import EventWriter, Form, document
from penstock.engine.sequence import Sequence
from penstock.engine.stats import EngineCollector
from penstock.engine.template import ChatTemplate
from penstock.engine.text import Tokenizer
from penstock.engine.timing import phases_of_answer
from penstock.net.reply import Reply
from penstock.net.request import Request
from penstock.routing.patterns import Patterns
from penstock.wire import phases, quality
from penstock.wire.openai import error_event
from penstock.wire.resume import HEADER, MEMBER, Continuation

_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
_LONG = 16384  # characters; longer texts are tokenised beside the event loop
_GREEDY = 1e-5  # temperatures below would overflow
_LEAST_TOP_P = 1e-6  # smaller ones would be 0 in the pipeline's arithmetic; the likeliest token alone fills this much
_MOST_MIN_P = 1 - 2**-24  # the pipeline takes no 1; this leaves the likeliest tokens alone, as 1 does


class Service:
    """Answers HTTP requests for one model that writes.

    Args:
        name: what the model is called.
        strict: refuse requests for a model of another name.
        processor: the version's own processing, if it has any.

    Attributes:
        face: the routes, these answers among them.
    """

    def __init__(
        self,
        engine: Engine,
        folder: ModelFolder,
        tokenizer: Tokenizer,
        *,
        name: str,
        strict: bool,
        processor: Processor | None = None,
    ) -> None:
        self._engine = engine
        self._folder = folder
        self._tokenizer = tokenizer
        self._name = name
        source = folder.template or tokenizer.template
        self._template = ChatTemplate(source, folder.special) if source else None
        self._processor = processor
        self.face = Face(
            folder,
            name=name,
            strict=strict,
            ready=lambda: engine.ready,
            collector=EngineCollector(engine.stats, name, lambda: (engine.running, engine.waiting, engine.cache_usage)),
            posts={"/v1/chat/completions": self._chat, "/v1/completions": self._completion},
            refused={"/v1/embeddings": "writes texts and makes no embeddings; ask one that does"},
            worker=lambda: engine.worker_pid,
        )
        self._random = random.SystemRandom()

    async def _chat(self, request: Request, reply: Reply) -> None:
        await self._answer(request, reply, chat=True)

    async def _completion(self, request: Request, reply: Reply) -> None:
        await self._answer(request, reply, chat=False)

    async def _answer(self, request: Request, reply: Reply, *, chat: bool) -> None:
        resume = request.headers.get(HEADER, b"")
        wish = request.headers.get(quality.HEADER)
        refusals = None if wish is None else refusals_of(wish)
        timed = phases.HEADER in request.headers
        ask = read_chat(request.body, resume) if chat else read_completion(request.body, resume)
        self.face.check_model(ask.model)
        if self._processor is not None and self._processor.writes:
            ask = self._processable(ask, self._processor)
        prompts = await self._prompts(ask)
        sequences = self._sequences(ask, prompts, request.received_ns, examined=refusals is not None)
        continued = ask.continued
        form = Form(
            chat=chat,
            id=continued.id if continued is not None else ("chatcmpl-" if chat else "cmpl-") + os.urandom(12).hex(),
            created=continued.created if continued is not None else int(time.time()),
            model=self._name,
            logprobs=ask.logprobs,
            include_usage=ask.include_usage,
            begun=continued is not None,
            ended=continued is not None and continued.ended,
        )
        if ask.stream:
            headers = [*_STREAM, (HEADER, resume)] if ask.tell else _STREAM
            await self._stream(sequences, _Writer(reply, form, headers), reply, len(prompts), refusals, timed=timed)
            return
        answer = Answer(sequences)
        try:
            self._engine.submit(answer)
            await answer.done
        finally:
            self._engine.cancel(answer)
        await self._complete(sequences)
        seen = _seen(sequences, refusals)
        head = JSON if seen is None else [*JSON, (quality.HEADER, quality.quality_value(seen))]
        body = document(form, sequences, len(prompts))
        took = _took(answer, timed=timed)
        if took is not None:
            head = [*head, (phases.HEADER, phases.phases_value(took))]
        reply.send(200, head, body)

    async def _stream(
        self,
        sequences: list[Sequence],
        writer: "_Writer",
        reply: Reply,
        prompts: int,
        refusals: Patterns | None,
        *,
        timed: bool,
    ) -> None:
        if sequences[0].finish:  # all of it was there when it broke off
            writer(sequences[0])
            reply.end(writer.events.last(sequences, prompts))
            return
        whole = self._processor is not None and self._processor.calls_on_answers
        answer = Answer(sequences, None if whole else writer)
        try:
            self._engine.submit(answer)
            await answer.done
            await self._complete(sequences)
            for sequence in sequences if whole else ():
                writer(sequence)
        except PenstockError as error:
            if not reply.started:
                raise
            reply.end(error_event(error))
            return
        finally:
            self._engine.cancel(answer)
        seen = _seen(sequences, refusals)
        reply.end(writer.events.last(sequences, prompts, seen, _took(answer, timed=timed)))

    def _processable(self, ask: Ask, processor: Processor) -> Ask:
        """The ask, without what cannot be honoured where the version's processing changes answers.

        Raises:
            BadRequest: for what the client has asked for by name.
        """
        if ask.stream and not processor.streams:
            raise BadRequest(
                f"The model {self._name!r} processes answers in a way that needs all of an answer: ask without `stream`.",
                code="processing_needs_whole_answer",
                param="stream",
            )
        if ask.logprobs:
            raise BadRequest(
                f"The model {self._name!r} processes its answers, so that tokens have no place in them: leave out `logprobs`.",
                code="unsupported_parameter",
                param="logprobs",
            )
        if not processor.calls_on_answers:
            return ask
        if ask.continued is not None:
            raise BadRequest(f"The model {self._name!r} has code for its answers: none is continued.", param=MEMBER)
        return msgspec.structs.replace(ask, tell=False)

    async def _complete(self, sequences: list[Sequence]) -> None:
        """Does what is left to do with whole answers.

        Raises:
            UpstreamFailed: if one could not be processed as the version asks.
        """
        for sequence in sequences:
            if sequence.failure is not None:
                raise sequence.failure
        processor = self._processor
        if processor is not None and processor.calls_on_answers:
            for sequence in sequences:
                sequence.settle(await processor.complete(sequence.held))

    # -- from the ask to sequences -----------------------------------------------------------------------------------

    async def _prompts(self, ask: Ask) -> list[list[int]]:
        """Tokens of every prompt.

        Raises:
            BadRequest: if one leaves no room in the context, or holds what is no token.
        """
        if ask.messages is not None:
            if self._template is None:
                raise BadRequest(
                    f"The model {self._name!r} has no chat template, so it cannot chat; use /v1/completions.",
                    code="no_chat_template",
                    param="messages",
                )
            messages = ask.messages
            if self._processor is not None and self._processor.reads:
                messages = await self._processor.chats(messages)
            prompts = [await self._encode(self._template.render(messages), special=False)]
        else:
            texts = await self._processed(ask.prompts)
            prompts = [await self._encode(p, special=True) if isinstance(p, str) else p for p in texts]
        where = "messages" if ask.messages is not None else "prompt"
        for tokens in prompts:
            self._check_tokens(tokens, where)
        return prompts

    async def _processed(self, prompts: list[str] | list[list[int]]) -> list[str] | list[list[int]]:
        processor = self._processor
        if processor is None or not processor.reads:
            return prompts
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]
        if len(texts) < len(prompts):
            raise BadRequest(
                f"The model {self._name!r} processes prompts, which it can do to texts alone: send no tokens.",
                code="unsupported_parameter",
                param="prompt",
            )
        return [await processor.asked(text) for text in texts]

    async def _encode(self, text: str, *, special: bool) -> list[int]:
        if len(text) > _LONG:
            return await asyncio.to_thread(self._tokenizer.encode, text, special=special)
        return self._tokenizer.encode(text, special=special)

    def _check_tokens(self, tokens: list[int], where: str) -> None:
        if not tokens:
            raise BadRequest(f"{where} is empty: it has no tokens.", param=where)
        self._check_vocabulary(tokens, where)
        if len(tokens) >= self._folder.context:
            raise BadRequest(
                f"This model's context holds {self._folder.context} tokens, and the {where} "
                f"{'have' if where == 'messages' else 'has'} {len(tokens)}; at least 1 must be left for the answer.",
                code="context_length_exceeded",
                param=where,
            )

    def _check_vocabulary(self, tokens: list[int], where: str) -> None:
        bad = next((token for token in tokens if not 0 <= token < self._tokenizer.size), None)
        if bad is not None:
            raise BadRequest(f"{where} holds {bad}, and tokens are 0 to {self._tokenizer.size - 1}.", param=where)

    def _sequences(self, ask: Ask, prompts: list[list[int]], arrived_ns: int, *, examined: bool) -> list[Sequence]:
        for name in ("presence_penalty", "frequency_penalty"):
            if getattr(ask, name) and not self._engine.penalties:
                raise BadRequest(
                    f"{name} cannot be computed rightly for a model of this size; leave it out.",
                    code="unsupported_parameter",
                    param=name,
                )
        seed = self._random.getrandbits(32) if ask.seed is None else ask.seed
        sequences: list[Sequence] = []
        for prompt in prompts:
            for copy in range(ask.n):
                sampling = _sampling(ask, self._folder, room=self._folder.context - len(prompt), seed=seed + copy)
                if examined and not sampling.logprobs:
                    sampling = msgspec.structs.replace(sampling, logprobs=True)
                sequences.append(
                    Sequence(
                        len(sequences),
                        prompt,
                        sampling,
                        tokenizer=self._tokenizer,
                        stops=ask.stop,
                        arrived_ns=arrived_ns,
                        tells_logprobs=ask.logprobs,
                        chain=self._processor.answer() if self._processor is not None else None,
                        holds=self._processor is not None and self._processor.calls_on_answers,
                    )
                )
                if examined:
                    sequences[-1].examined = Examination()
        if ask.continued is not None:
            self._continue(sequences[0], ask.continued)
        if ask.tell:
            sequences[0].untold = []
        return sequences

    def _continue(self, sequence: Sequence, so_far: Continuation) -> None:
        """Has `sequence` go on where another replica stopped. What was forced counts as completion; later draws are new ones."""
        tokens, sampling = so_far.tokens, sequence.sampling
        self._check_vocabulary(tokens, MEMBER)
        finish = ""
        if tokens and tokens[-1] in self._engine.stop_ids and not sampling.ignore_eos:
            finish = "stop"
        elif len(tokens) >= sampling.max_tokens:
            finish = "length"
        else:
            sequence.sampling = msgspec.structs.replace(
                sampling,
                max_tokens=sampling.max_tokens - len(tokens),
                seed=(sampling.seed + len(tokens)) % (1 << 32),
            )
        sequence.force(tokens, so_far.sent, finish)


class _Writer:
    """Writes a stream's events as they come."""

    __slots__ = ("_headers", "_reply", "events")

    def __init__(self, reply: Reply, form: Form, headers: list[tuple[bytes, bytes]]) -> None:
        self._reply = reply
        self._headers = headers
        self.events = EventWriter(form)

    def __call__(self, sequence: Sequence) -> None:
        if sequence.failure is not None:
            return  # an error follows, and no end
        if not self._reply.started:
            self._reply.start(200, self._headers)
        self._reply.write(self.events.text(sequence))


def _seen(sequences: list[Sequence], refusals: Patterns | None) -> Quality | None:
    """What was seen of the answer, if somebody wants to know."""
    examined = [one.examined for one in sequences if one.examined is not None]
    return None if refusals is None else quality_of_all(examined, refusals)


def _took(answer: Answer, *, timed: bool) -> EnginePhases | None:
    """How long its phases took, if somebody wants to know."""
    return phases_of_answer(answer, time.monotonic_ns()) if timed else None


def _sampling(ask: Ask, folder: ModelFolder, *, room: int, seed: int) -> Sampling:
    """The request's parameters, else the model's own, else OpenAI's."""
    own = folder.defaults
    temperature = own.get("temperature", 1.0) if ask.temperature is None else ask.temperature
    top_p = own.get("top_p", 1.0) if ask.top_p is None else ask.top_p
    top_k = own.get("top_k", 0) if ask.top_k is None else ask.top_k
    min_p = own.get("min_p", 0.0) if ask.min_p is None else ask.min_p
    repetition = own.get("repetition_penalty", 1.0) if ask.repetition_penalty is None else ask.repetition_penalty
    return Sampling(
        max_tokens=min(room, ask.max_tokens or room),
        temperature=0.0 if temperature < _GREEDY or top_p == 0 else temperature,
        top_p=max(_LEAST_TOP_P, top_p) if top_p else 1.0,
        top_k=max(0, int(top_k)),
        min_p=min(min_p, _MOST_MIN_P),
        presence_penalty=ask.presence_penalty,
        frequency_penalty=ask.frequency_penalty,
        repetition_penalty=repetition,
        seed=seed % (1 << 32),
        logprobs=ask.logprobs,
        ignore_eos=ask.ignore_eos,
    )
