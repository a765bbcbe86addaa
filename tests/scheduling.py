"""Which of pytest-xdist's processes runs which file of tests."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

INSTALLATIONS = "tests/system/"  # files there start whole installations


class OneInstallationAtATime(LoadFileScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """The first process begins with the files that start installations, the others with all else; who is done takes from the other.

    Two installations at once are some twenty processes: on two cores they take longer than one after the other, and starve what is
    timed. Of each kind the files with most tests come first, so that what is left at the end is short.
    """

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        self._starts: WorkerController | None = None

    def _assign_work_unit(self, node: WorkerController) -> None:
        self._starts = self._starts or node
        mine = node is self._starts
        fits = (file for file in self.workqueue if file.startswith(INSTALLATIONS) is mine)
        self.workqueue.move_to_end(next(fits, next(iter(self.workqueue))), last=False)
        super()._assign_work_unit(node)
