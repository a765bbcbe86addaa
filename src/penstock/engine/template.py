"""Chat templates: messages to one prompt text, by the model's own Jinja template, in a sandbox."""

import time
from typing import Any

import msgspec
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from penstock.core.errors import BadRequest, Damaged

_encode = msgspec.json.encode


class ChatTemplate:
    """One model's template, compiled as Hugging Face's `apply_chat_template` would.

    Raises:
        Damaged: if the template is no Jinja.
    """

    def __init__(self, source: str, special: dict[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], autoescape=False
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise Damaged(f"The model's chat template is wrong: {error}.") from None
        self._special = special
        self._knows_developer = "developer" in source

    def render(self, messages: list[dict[str, Any]]) -> str:
        """The prompt that asks for the answer to `messages`.

        Raises:
            BadRequest: if the template refuses them; the reason is the template's own.
        """
        if not self._knows_developer:
            messages = [{**m, "role": "system"} if m["role"] == "developer" else m for m in messages]
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._special)
        except TemplateError as error:
            raise BadRequest(f"The model's chat template refuses the messages: {error}", param="messages") from None
        except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
            raise BadRequest(
                f"The model's chat template cannot render the messages: {error}", param="messages"
            ) from None


def _refuse(message: str) -> str:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return time.strftime(form)


def _tojson(value: Any, indent: int | None = None, **_: Any) -> str:
    encoded = _encode(value)
    return (msgspec.json.format(encoded, indent=indent) if indent else encoded).decode()
