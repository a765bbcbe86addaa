"""A policy, ready for requests: the entry to this room."""

from penstock.core.snapshot import Policy
from penstock.guard.rules import Scanner, Screened, rules_digest
from penstock.guard.stream import OutputScanner


class Guard:
    """The rules of one policy. Immutable, so that one serves all requests of a worker."""

    __slots__ = ("_input", "_output", "name", "rules_digest")

    def __init__(self, policy: Policy) -> None:
        self.name = policy.name
        self.rules_digest = rules_digest(policy)
        on_input = [r for r in policy.rules if "input" in r.on]
        on_output = [r for r in policy.rules if "output" in r.on]
        self._input = Scanner(on_input, "input") if on_input else None
        self._output = Scanner(on_output, "output") if on_output else None

    @property
    def has_input(self) -> bool:
        """Whether any rule is for what clients send."""
        return self._input is not None

    @property
    def has_output(self) -> bool:
        """Whether any rule is for what models answer."""
        return self._output is not None

    def scan_input(self, text: str) -> Screened:
        """One text of a request after the input rules. If `blocked`, the request must be refused."""
        return Screened(text) if self._input is None else self._input.scan(text)

    def scan_output(self, text: str) -> Screened:
        """One whole answer after the output rules. If `blocked`, only `text` may be shown, with finish reason `content_filter`."""
        return Screened(text) if self._output is None else self._output.scan(text)

    def stream(self) -> OutputScanner | None:
        """A scanner for one choice of one streamed answer; None if there are no output rules."""
        return None if self._output is None else OutputScanner(self._output)


def compile_policy(policy: Policy) -> Guard | None:
    """The guard of `policy`; None if it has no rules.

    Raises:
        BadRequest: if a rule is empty or a pattern is not RE2's; the message names the rule, `param` its path.
    """
    return Guard(policy) if policy.rules else None
