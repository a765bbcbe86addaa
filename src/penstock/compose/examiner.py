"""The examiner, which evaluates versions and makes builds beside control."""

import asyncio
import os
import signal
import socket

from penstock.compose.process import data_folder, log_to_stdout
from penstock.compose.settings import service_token
from penstock.core.errors import BadRequest
from penstock.core.settings import Settings

_EXAMINER_NICE = 10


def run_examiner(settings: Settings) -> None:
    """The examiner of one data folder, until SIGTERM: it evaluates versions beside control, nice to what serves.

    Raises:
        BadRequest: if it is not said where control is.
    """
    log_to_stdout()
    if not settings.ship.control_url:
        raise BadRequest("The examiner must know where control is: give --control-url.", param="--control-url")
    os.nice(_EXAMINER_NICE)
    asyncio.run(_examiner(settings))


async def _examiner(settings: Settings) -> None:
    import httpx

    from penstock.examiner.desk import Desk
    from penstock.examiner.examiner import Examiner
    from penstock.examiner.harness import HarnessRunner
    from penstock.net.pulse import Pulse

    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    headers = {"authorization": f"Bearer {service_token(settings)}"}
    # The same name after a kill: what was under way is gone on with at once.
    holder = f"{socket.gethostname()[:40]}:{data_folder(settings)}"[-160:]
    pulse = Pulse(data_folder(settings) / "run" / "examiner.pulse")
    await pulse.start()
    async with httpx.AsyncClient(
        base_url=settings.ship.control_url, headers=headers, timeout=60.0, trust_env=False
    ) as client:
        harness = HarnessRunner(settings.examiner.lm_eval, data_folder(settings) / "toolchains")
        await Examiner(Desk(client, holder), settings.engine, harness).run(stop)
    await pulse.stop()
