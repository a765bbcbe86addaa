"""The engine's process: server, tokenizer and what computes, from start to drain."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

from penstock.core.errors import BadRequest, Damaged, Unavailable
from penstock.core.settings import EngineSettings
from penstock.engine.embedder import Embedder, is_embedder
from penstock.engine.embeddings import EmbeddingService
from penstock.engine.engine import Engine
from penstock.engine.face import Face
from penstock.engine.folder import ModelFolder, read_folder
from penstock.engine.own_code import OwnCode
from penstock.engine.processing import Processor, load_processor
from penstock.engine.service import Service
from penstock.engine.stats import Stats
from penstock.engine.text import Tokenizer
from penstock.net.server import Server
from penstock.registry.processing import CODE, check_code
from penstock.registry.processing import FILE as PROCESSING

_log = logging.getLogger("penstock.engine")


async def serve_engine(
    *,
    directory: Path,
    model: str | None,
    settings: EngineSettings,
    started: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
    signals: bool = True,
    signed: bool = False,
) -> None:
    """Serves the model in `directory` until SIGTERM, SIGINT or `stop`; then drains for `settings.drain_s`.

    The port answers from the beginning; `/readyz` is 503 until the model is loaded.

    Args:
        directory: the model in OpenVINO's form, with its tokenizers and JSON files.
        settings: address, sizes and times.
        model: what the model is called; requests for another are refused. None: the folder's name, and any is taken.
        started: called with the server's URL when requests are taken.
        stop: ends it.
        signals: SIGTERM and SIGINT end it too, where the event loop can be told of them.
        signed: somebody who is trusted has signed every byte in `directory`; without it no code of a version's own is run.

    Raises:
        NotFound: if the folder holds no model.
        Damaged: if the model cannot be loaded, its own code must not or cannot be run, or its worker dies again and again.
        Unavailable: if the address cannot be listened on.
    """
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT) if signals else ():
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop.set)
    folder = read_folder(directory)
    tokenizer = await asyncio.to_thread(Tokenizer, directory)
    name, strict = model or directory.name, model is not None
    if is_embedder(directory):
        embedder = Embedder(directory, threads=settings.threads or 1, max_waiting=settings.max_waiting)
        face = EmbeddingService(embedder, folder, tokenizer, name=name, strict=strict).face
        await _serve_embedder(embedder, face, settings, started, stop)
        return
    engine = Engine(folder, folder.stop_ids or (tokenizer.eos_id,), settings)
    processor = load_processor(folder.processing, PROCESSING) if folder.processing else None
    face = Service(engine, folder, tokenizer, name=name, strict=strict, processor=processor).face
    code = _own_code(folder, processor, engine.stats, settings, signed=signed)
    server = await _listening(face, settings)
    try:
        if code is not None and processor is not None:
            await code.start(processor.calls)
            processor.use(code)
        engine.start()
        await engine.until(engine.came_ready, stop)
        if started is not None and not stop.is_set():
            started(f"http://{settings.host}:{server.port}")
        await engine.until(stop)
        _log.info("draining")
    finally:
        face.draining = True
        await server.drain(settings.drain_s)
        await engine.stop()
        if code is not None:
            await code.stop()


def _own_code(
    folder: ModelFolder, processor: Processor | None, stats: Stats, settings: EngineSettings, *, signed: bool
) -> OwnCode | None:
    """The version's own code; None: it has none.

    Raises:
        Damaged: if it must not be run.
    """
    try:
        check_code(folder.processing or None, folder.code)
    except BadRequest as error:
        raise Damaged(error.message, param=CODE) from None
    if processor is None or folder.code is None:
        return None
    if not signed:
        raise Damaged(
            f"{folder.directory} brings code of its own ({CODE}), and nobody who is trusted has signed it: it is not run.",
            code="unsigned_code",
            hint="Sign the version (penstock models sign), and start the engine with --provenance and --trust KEY.",
        )
    return OwnCode(folder.code.decode(), stats, max_waiting=settings.max_waiting)


async def _serve_embedder(
    embedder: Embedder,
    face: Face,
    settings: EngineSettings,
    started: Callable[[str], None] | None,
    stop: asyncio.Event,
) -> None:
    server = await _listening(face, settings)
    try:
        await embedder.start()
        if started is not None and not stop.is_set():
            started(f"http://{settings.host}:{server.port}")
        await embedder.until(stop)
        _log.info("draining")
    finally:
        face.draining = True
        await server.drain(settings.drain_s)
        await embedder.stop()


async def _listening(face: Face, settings: EngineSettings) -> Server:
    server = Server(face.handle)
    try:
        await server.start(settings.host, settings.port)
    except OSError as error:
        raise Unavailable(
            f"Port {settings.port} on {settings.host} cannot be had: {os.strerror(error.errno or 0)}.",
            code="port_in_use",
            hint="Name another with --port.",
        ) from error
    return server
