"""What a command of the API is handed: the API, and how to answer people or programs."""

import functools
import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.flags import data_flag, json_flag
from penstock.compose.settings import read_settings
from penstock.core.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from penstock.cli.client import Api


_PIPED_WIDTH = 240


class Session:
    """One run of a command.

    Attributes:
        settings: as flags, environment and file say.
        as_json: one JSON document is printed, and nothing else.
    """

    def __init__(self, settings: Settings, *, as_json: bool, stack: ExitStack) -> None:
        self.settings = settings
        self.as_json = as_json
        self._stack = stack
        self._api: Api | None = None
        self._patience_s: float | None = None

    @property
    def api(self) -> "Api":
        """The control API; found and opened at the first use.

        Raises:
            Unauthenticated: if there is no key to ask with.
        """
        if self._api is None:
            from penstock.cli.client import Api, find_key, find_url

            url = find_url(self.settings)
            patience = {} if self._patience_s is None else {"patience_s": self._patience_s}
            self._api = self._stack.enter_context(Api(url, find_key(self.settings, url), **patience))
        return self._api

    def patience(self, seconds: float) -> None:
        """How long the API, once it is opened, has for each step of an answer; for what takes as long as a model's weights do."""
        self._patience_s = seconds

    @property
    def console(self) -> "Console":
        """The terminal, for people."""
        from rich.console import Console

        console = Console(soft_wrap=True, highlight=False)
        if not console.is_terminal:
            console.width = _PIPED_WIDTH  # nobody's window: lines stay whole for grep
        return console

    def answer(self, document: Any, people: Callable[[], None]) -> None:
        """Prints `document` as JSON for programs, or has `people` print it for people."""
        if self.as_json:
            click.echo(json.dumps(document, indent=2))
        else:
            people()

    def say(self, text: str) -> None:
        """A sentence for people; programs get the document alone."""
        if not self.as_json:
            click.echo(text)


def with_session(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--url`, `--key`, `--data` and `--json` to a command and hands it a `Session` first."""

    @json_flag
    @data_flag
    @click.option("--key", metavar="KEY", help="Key to ask with [default: PENSTOCK_KEY, or DIR/admin.key].")
    @click.option("--url", metavar="URL", help="Control plane [default: PENSTOCK_URL, or what runs on DIR].")
    @functools.wraps(command)
    def wrapped(*, url: str | None, key: str | None, data: str | None, as_json: bool, **arguments: Any) -> Any:
        settings = read_settings({"url": url, "key": key, "data": data})
        with ExitStack() as stack:
            return command(Session(settings, as_json=as_json, stack=stack), **arguments)

    return wrapped
