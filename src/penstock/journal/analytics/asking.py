"""How long exchanges are kept, as control says."""

from penstock.journal.analytics.upkeep import Retention
from penstock.journal.control_client import ControlClient


class RetentionAsker:
    """Asks control, which knows the policies."""

    def __init__(self, control: ControlClient) -> None:
        self._control = control

    async def ask(self) -> Retention:
        """What holds now.

        Raises:
            PenstockError: if control is away, or answers something else.
        """
        return await self._control.read("/internal/v1/retention", Retention, "how long exchanges are kept")
