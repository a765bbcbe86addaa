"""What follows from a verdict beside the traffic: a win can promote the version, a loss can roll it back or keep it out."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from penstock.core.errors import BadRequest, PenstockError
from penstock.core.references import parse_reference
from penstock.experiments.arms import ArmSpec


class HooksSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a verdict does to the deployment that gateways serve.

    `win`: the best treatment's version is promoted. `loss`: the worse one's version is blocked, or, where it is what is live, rolled back.
    """

    win: Literal["", "promote"] = ""
    loss: Literal["", "block", "roll_back"] = ""


class Deed(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done with which version (NAME:LABEL)."""

    act: Literal["promote", "block", "roll_back"]
    version: str


def check_hooks(hooks: HooksSpec, arms: Sequence[ArmSpec], *, strategy: str) -> None:
    """Refuse hooks that could not do what they say.

    Raises:
        BadRequest: `param` is the path of what is wrong.
    """
    if hooks.win and strategy == "shadow":
        raise _refuse("Nobody has seen what a shadow answers: it cannot promote.", "hooks.win")
    names = set()
    for index, arm in enumerate(arms):
        if arm.build is None:
            raise _refuse(f"The arm {arm.name!r} is no version: hooks need builds.", f"arms[{index}].build")
        reference = parse_reference(arm.build)
        names.add(reference.name)
        if reference.label is None:
            raise _refuse(f"{arm.build} may become another version: hooks need labels.", f"arms[{index}].build")
        if hooks.win and (arm.params or arm.system is not None or arm.policy is not None or arm.routing is not None):
            raise _refuse(
                f"The arm {arm.name!r} varies more than its version, which a promotion would leave behind.",
                f"arms[{index}]",
            )
    if len(names) > 1:
        raise _refuse("The arms are versions of several models: hooks need one.", "arms")


def deed_of(hooks: HooksSpec | None, arms: Sequence[ArmSpec], *, state: str, arm: str) -> Deed | None:
    """What a verdict's `state` about `arm` asks for; None: nothing."""
    builds = {one.name: one.build or "" for one in arms}
    if hooks is None or arm not in builds:
        return None
    if state == "better" and hooks.win == "promote":
        return Deed(act="promote", version=builds[arm])
    if state == "worse" and hooks.loss:
        return Deed(act="block" if hooks.loss == "block" else "roll_back", version=builds[arm])
    return None


def _refuse(sentence: str, param: str) -> PenstockError:
    return BadRequest(sentence, param=param)
