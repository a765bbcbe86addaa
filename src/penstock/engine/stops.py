"""Stop strings in a text that comes in pieces: nothing of a stop string gets out, and nothing waits longer than it must."""


class StopFinder:
    """Looks for the first of `stops` to be completed; how the text was cut into pieces makes no difference."""

    __slots__ = ("_held", "_reach", "_stops", "hit")

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._reach = max(map(len, stops), default=1) - 1
        self._held = ""
        self.hit = False

    @property
    def waiting(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._stops)

    def feed(self, text: str) -> str:
        """What of the text so far may go out. After a hit nothing more comes."""
        if not self._stops:
            return text
        if self.hit:
            return ""
        text = self._held + text
        ends = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.hit = True
            self._held = ""
            return text[: min(ends)[1]]
        keep = min(self._reach, len(text))
        while keep and not any(stop.startswith(text[-keep:]) for stop in self._stops):
            keep -= 1
        cut = len(text) - keep
        self._held = text[cut:]
        return text[:cut]

    def finish(self) -> str:
        """What was held back and turned out to be no stop string."""
        held, self._held = self._held, ""
        return held
