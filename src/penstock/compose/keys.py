"""The keys that hosts share: their root, and a host's part in exchanging them."""

import asyncio
import logging
import socket

from penstock.compose.settings import service_token
from penstock.core.errors import BadRequest
from penstock.core.settings import Settings


async def have_root(settings: Settings) -> None:
    """Has the root of all hosts' keys here, if they share them; control's own machine makes it.

    Raises:
        BadRequest: if they share them and it is not said where control is.
        Unavailable: if control cannot be asked for it, or the disk refuses.
    """
    if not settings.keys.shared:
        return
    from penstock.journal.key_control import borrow_root
    from penstock.journal.keyring import keys_folder

    url = settings.gateway.control_url or settings.ship.control_url
    if not url:
        raise BadRequest("keys.shared needs control: give --control-url.", param="--control-url")
    await borrow_root(keys_folder(settings), url, service_token(settings))


async def exchange_keys(settings: Settings) -> None:
    """The host's part in shared keys, until cancelled."""
    from penstock.core.errors import PenstockError
    from penstock.journal.control_client import ControlClient
    from penstock.journal.key_exchange import EVERY_S, KeyExchange
    from penstock.journal.keyring import open_keys

    while True:
        try:
            await have_root(settings)
            keys = open_keys(settings, make=False)
            break
        except PenstockError as error:
            logging.getLogger("penstock.ship").warning("keys: %s", error.message)
            await asyncio.sleep(EVERY_S)
    control = ControlClient(settings.ship.control_url, service_token(settings))
    try:
        await KeyExchange(keys, control.ask, socket.gethostname()).run()
    finally:
        await control.close()
        keys.close()
