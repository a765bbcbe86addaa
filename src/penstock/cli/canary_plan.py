"""The flags that say how a version is tried out, where an environment's plan is not what is wanted."""

from collections.abc import Callable
from typing import Any

import click

from penstock.core.errors import BadRequest

_FLAGS = ("steps", "minutes", "samples", "unit", "metric", "margin", "guardrails", "lapse_s")


def plan_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags of a canary's plan to a command; `given_plan` reads them."""
    for option in reversed(
        (
            click.option(
                "--steps", metavar="PERCENTS", help="Its shares, rising, such as 1,5,25,50,100 [default: as ENV says]."
            ),
            click.option(
                "--minutes", type=click.FloatRange(0), help="What a step lasts at least [default: as ENV says]."
            ),
            click.option(
                "--samples",
                type=click.IntRange(1),
                help="Units that it answers in a step at least [default: as ENV says].",
            ),
            click.option(
                "--unit",
                type=click.Choice(["user", "session", "key", "request"]),
                help="What stays with a version [default: as ENV says].",
            ),
            click.option("--metric", help="Metric that decides the promotion [default: as ENV says]."),
            click.option(
                "--margin", type=float, help="How much worse it may be in it, in its unit [default: as ENV says]."
            ),
            click.option(
                "--guardrail",
                "guardrails",
                multiple=True,
                metavar="METRIC[=MARGIN]",
                help="What undoes it, given once for each [default: as ENV says].",
            ),
            click.option(
                "--lapse",
                "lapse_s",
                type=click.FloatRange(1),
                help="Seconds that its share outlives those who watch it.",
            ),
        )
    ):
        command = option(command)
    return command


def given_plan(flags: dict[str, Any]) -> dict[str, Any]:
    """The fields of a plan among `flags`; what was not given is left out.

    Raises:
        BadRequest: if shares or guardrails are not written as the flags say.
    """
    chosen = {name: flags.get(name) for name in _FLAGS}
    chosen |= {"steps": _shares(flags.get("steps")), "guardrails": _guardrails(flags.get("guardrails") or ())}
    return {name: value for name, value in chosen.items() if value is not None}


def _shares(text: str | None) -> list[float] | None:
    """`1,5,25` or `1%,5%` as shares."""
    if text is None:
        return None
    try:
        return [round(float(part.strip().removesuffix("%")) / 100, 9) for part in text.split(",")]
    except ValueError:
        raise BadRequest(f"{text!r}: give percents such as 1,5,25,50,100.", param="--steps") from None


def _guardrails(texts: tuple[str, ...]) -> list[dict[str, Any]] | None:
    """`error_rate` or `latency_p95=0.5` as guardrails with margins."""
    found = []
    for text in texts:
        metric, _, margin = text.partition("=")
        try:
            found.append({"metric": metric, "margin": float(margin) if margin else 0.0})
        except ValueError:
            raise BadRequest(f"{text!r}: give METRIC or METRIC=MARGIN.", param="--guardrail") from None
    return found or None
