"""The loop that tells webhooks: fan out what happened, send what is due, note what came of it. The leader alone acts."""

import asyncio
import logging

from penstock.control.context import SYSTEM, Control
from penstock.control.leases import Lease
from penstock.control.specs.webhook import WebhookSpec
from penstock.control.webhooks.kind import webhooks_of
from penstock.control.webhooks.rows import Due, claim, due_now, fan_out, newest_event, positions, prune, settle
from penstock.control.webhooks.secrets import folder_of, read_secrets
from penstock.control.webhooks.send import Sender
from penstock.core.errors import BadRequest, PenstockError
from penstock.delivery.webhooks import Outcome, after, parse_networks

_LOG = logging.getLogger("penstock.control")
_LOOK_S = 0.5
_PRUNE_S = 60.0
_DAY_S = 86400.0
_GRACE_S = 5.0  # beyond an attempt's time, until somebody else may take it for cut off
_OF_ONE = 4  # requests to one webhook at a time
_OF_ALL = 32


class Dispatcher:
    """Tells webhooks. Run it as a task."""

    def __init__(self, control: Control, lease: Lease | None = None) -> None:
        """The loop over `control`; it leads while `lease` is held, by default one of its own."""
        settings = control.settings.webhooks
        self._control = control
        self._settings = settings
        self._folder = folder_of(control.settings, control.data)
        self._networks = parse_networks([one for one in settings.allow_networks.split(",") if one.strip()])
        self._lease = lease or Lease(control, "webhooks")
        self._sending: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._pruned_at = 0.0
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        sender = Sender(networks=self._networks, timeout_s=self._settings.timeout_s)
        try:
            while True:
                self._ended.clear()
                try:
                    if await self._lease.held():
                        await self.round(sender)
                except PenstockError as error:
                    _LOG.warning("webhooks: %s", error.message)
                    await asyncio.sleep(_LOOK_S)
                try:
                    await asyncio.wait_for(self._ended.wait(), _LOOK_S)
                except TimeoutError:
                    continue
        finally:
            for task in self._sending.values():
                task.cancel()
            await asyncio.gather(*self._sending.values(), return_exceptions=True)
            await sender.close()

    async def round(self, sender: Sender) -> None:
        """Make deliveries of what happened since, and begin to send what is due.

        Raises:
            Unavailable: if the database cannot be reached.
        """
        control = self._control
        now = control.clock()
        async with control.database.read() as connection:
            told = await positions(connection)
            newest = await newest_event(connection)
            webhooks = await webhooks_of(connection) if told else {}
        if any(position < newest for position in told.values()):
            async with control.deed(SYSTEM) as change:
                await fan_out(change, webhooks)
        if now - self._pruned_at >= _PRUNE_S:
            async with control.database.write() as connection:
                await prune(connection, now - self._settings.keep_days * _DAY_S)
            self._pruned_at = now
        if not told:
            return
        async with control.database.read() as connection:
            due = await due_now(connection, now)
        for one in due:
            spec = webhooks.get(one.webhook)
            lane = (one.webhook, one.model)
            busy = sum(name == one.webhook for name, _ in self._sending)
            if spec is None or not spec.enabled or lane in self._sending or busy >= _OF_ONE:
                continue
            if len(self._sending) >= _OF_ALL:
                break
            self._sending[lane] = asyncio.create_task(self._tell(sender, spec, one), name=f"webhook {one.webhook}")

    async def _tell(self, sender: Sender, spec: WebhookSpec, due: Due) -> None:
        """Send one message, once, and note what came of it."""
        try:
            await self._attempt(sender, spec, due)
        except PenstockError as error:  # the database is away: the message is sent again when it is back
            _LOG.warning("webhook %s: %s", due.webhook, error.message)
        finally:
            self._sending.pop((due.webhook, due.model), None)
            self._ended.set()

    async def _attempt(self, sender: Sender, spec: WebhookSpec, due: Due) -> None:
        control, settings = self._control, self._settings
        began = control.clock()
        async with control.database.write() as connection:
            if not await claim(connection, due, now=began, until=began + settings.timeout_s + _GRACE_S):
                return
        try:
            secrets = read_secrets(self._folder, spec.secret)
        except BadRequest as error:
            outcome = Outcome(status=0, error=error.message)
        else:
            outcome = await sender.send(spec.url, secrets, due.id, due.body.encode(), began)
        now = control.clock()
        following = after(
            outcome,
            attempts=due.attempts + 1,
            first_at=due.first_at if due.first_at is not None else began,
            now=now,
            draw=int.from_bytes(control.entropy(4), "big") / 2**32,
            give_up_s=settings.give_up_s,
        )
        if following.state == "dead":
            _LOG.warning("webhook %s: event %d is a dead letter: %s", due.webhook, due.sequence, outcome.error)
        async with control.database.write() as connection:
            await settle(connection, due, outcome, following, now)
