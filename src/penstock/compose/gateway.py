"""Gateway workers: one, or several on one port with the ledger that they share."""

import asyncio
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.compose.keys import have_root
from penstock.compose.process import data_folder, log_to_stdout, run
from penstock.compose.settings import service_token
from penstock.compose.up import supervise
from penstock.core.errors import Unavailable
from penstock.core.settings import Settings

if TYPE_CHECKING:
    from penstock.store.cache_redis import RedisCache
    from penstock.store.ledger_redis import RedisLedger
    from penstock.store.ledger_socket import SocketLedger


def run_gateway(settings: Settings, worker: int, *, supervised: bool) -> None:
    """One gateway worker, until SIGTERM. It shares the ledger of limits: Redis if that is set, else the supervisor's if there is one.

    Raises:
        PenstockError: if the address, the journal or the Snapshot cannot be had.
    """
    log_to_stdout()
    run(_gateway(settings, f"gateway-{worker}", supervised=supervised))


async def _gateway(settings: Settings, worker: str, *, supervised: bool) -> None:
    from penstock.gateway.serve import serve_gateway
    from penstock.journal.keyring import open_keys
    from penstock.journal.offsets import shipped_before
    from penstock.journal.vault import Vault
    from penstock.journal.writer import Bounds, JournalWriter
    from penstock.store.ledger import LocalLedger
    from penstock.store.ledger_log import LedgerLog
    from penstock.store.limiter import Limiter
    from penstock.store.slate import Slate, boot_of_this_machine

    data = data_folder(settings)
    loop = asyncio.get_running_loop()
    gateway = settings.gateway
    await have_root(settings)
    keys = open_keys(settings)
    journal = JournalWriter.open(
        data / "journal" / worker,
        worker,
        loop=loop,
        clock=time.time,
        bounds=Bounds(segment_bytes=gateway.journal_segment_bytes, disk_bytes=gateway.journal_disk_bytes),
        shipped=lambda name: shipped_before(data / "ship", worker, name),
    )
    shared, answers = _shared(settings, data, f"{worker}/{os.getpid()}/{time.time()}", supervised=supervised)
    limiter = Limiter(
        shared or LocalLedger(LedgerLog(data / f"ledger-{worker}.log")),
        epoch=time.time() - time.monotonic(),
        down=gateway.ledger_down,
        workers=gateway.workers,
        slate=Slate(data / "gateway" / f"{worker}.slate", boot_of_this_machine()),
    )
    if shared is not None:
        shared.seats = limiter.book.seats
        await shared.start()
    limiter.start(loop, time.monotonic)
    try:
        await serve_gateway(
            settings=gateway,
            data=data,
            worker=worker,
            journal=journal,
            limiter=limiter,
            service_token=service_token(settings),
            subject_key=keys.hash_key,
            shared=answers,
            vault=Vault(keys),
        )
    finally:
        limiter.close(time.monotonic())
        if answers is not None:
            await answers.close()
        if shared is not None:
            await shared.close()
        journal.close()
        keys.close()


def _shared(
    settings: Settings, data: Path, session: str, *, supervised: bool
) -> "tuple[RedisLedger | SocketLedger | None, RedisCache | None]":
    """The ledger of limits and the cache of answers that this worker has in common with others, as far as there are any."""
    url = settings.gateway.redis_url
    if url:
        try:
            from penstock.store.cache_redis import RedisCache
            from penstock.store.ledger_redis import RedisLedger
        except ImportError:
            message = "gateway.redis_url needs the redis client: install penstock[redis]."
            raise Unavailable(message, param="gateway.redis_url") from None
        ledger = RedisLedger(url, f"{socket.gethostname()}/{session}", clock=time.monotonic)
        return ledger, RedisCache(url, service_token(settings).encode())
    if supervised:
        from penstock.store.ledger_socket import SocketLedger

        return SocketLedger(data / "ledger.sock", session, clock=time.monotonic), None
    return None, None


def run_gateways(settings: Settings) -> None:
    """Several gateway workers on one port, and the ledger that they share, until SIGTERM.

    Raises:
        Conflict: if the data folder or the port is in use.
    """
    from penstock.gateway.edge import read_certificate
    from penstock.journal.keyring import open_keys
    from penstock.supervisor.folder import DataFolder
    from penstock.supervisor.ports import check_port

    log_to_stdout()
    folder = DataFolder(Path(settings.data))
    folder.prepare()
    with folder.lock(folder.lock_file):
        read_certificate(settings.gateway)
        asyncio.run(have_root(settings))
        open_keys(settings).close()
        check_port(settings.gateway.host, settings.gateway.port, flag="--gateway-port")
        asyncio.run(supervise(settings, folder, gateways_alone=True))
