"""`penstock apply`: documents of kind, name and spec become what is there, in one transaction; or the difference is only shown."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
import yaml
from pydantic import ValidationError

from penstock.access.principals import Permission, Principal, allows
from penstock.control.context import Control
from penstock.control.errors import validation_error
from penstock.control.kinds import Kind
from penstock.control.specs.resources import Document
from penstock.core.errors import BadRequest, Forbidden
from penstock.core.plain_yaml import PlainLoader

# What a caller needs to change each kind.
PERMISSIONS: dict[str, Permission] = {
    "Environment": "tenants:write",
    "Policy": "tenants:write",
    "Tenant": "tenants:write",
    "Key": "keys:write",
    "Pool": "deployments:write",
    "Route": "deployments:write",
    "Experiment": "experiments:write",
    "References": "experiments:write",
    "Evaluator": "tenants:write",
    "DataSet": "models:write",
    "Webhook": "tenants:write",
}


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What apply does, or would do, with one resource; `changes` has the paths that differ: [before, after]."""

    kind: str
    name: str
    action: Literal["create", "change", "keep", "delete"]
    changes: dict[str, tuple[Any, Any]] = {}
    told: dict[str, Any] = {}  # once: a new key's text


class _Loader(PlainLoader):
    """YAML as 1.2 reads it: only true and false are booleans (1.1 also takes `on`, a field of ours), and a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"}
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))


def read_documents(text: str) -> list[object]:
    """The YAML documents of `text`, empty ones left out.

    Raises:
        BadRequest: if it is no YAML; the message names the line.
    """
    try:
        return [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except RecursionError:
        raise BadRequest("The YAML is nested too deeply.", param="body") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark is not None else ""
        raise BadRequest(f"This is not YAML{place}: {getattr(error, 'problem', error)}.", param="body") from None


async def apply_documents(
    control: Control,
    kinds: Sequence[Kind],
    documents: Iterable[object],
    *,
    caller: Principal,
    dry_run: bool = False,
    prune: bool = False,
    override: str = "",
) -> list[Step]:
    """Bring what is there to `documents`: all of it or nothing.

    Args:
        control: the stores.
        kinds: the kinds that are known, each after those that it refers to: written in this order, deleted in the reverse.
        documents: parsed YAML or JSON.
        caller: who asks; needs the permission of each kind that changes.
        dry_run: change nothing, give the steps.
        prune: also delete what an earlier apply made and that is in none of `documents`.
        override: why an administrator lets pools name versions that do not pass their gates; "": nobody does.

    Raises:
        BadRequest: naming the document and the path of what is wrong.
        Forbidden: if the caller may not change a kind.
        Conflict: if something still needs what would be deleted.
    """
    wanted = _checked(kinds, documents)
    steps: list[Step] = []
    async with control.change(caller) as change:
        change.override = override
        before = {kind.name: await kind.current(change.connection) for kind in kinds}
        for kind in kinds:
            for name, spec in wanted.get(kind.name, {}).items():
                step = _compare(kind, name, before[kind.name].get(name), kind.dump(spec))
                if step.action != "keep":
                    _permit(caller, kind.name)
                    told = await _located(kind, name, kind.put(change, name, spec, "apply"))
                    step = msgspec.structs.replace(step, told={} if dry_run else told)
                steps.append(step)
        if prune:
            for kind in reversed(kinds):
                gone = set(await kind.current(change.connection, "apply")) - set(wanted.get(kind.name, {}))
                for name in sorted(gone):
                    _permit(caller, kind.name)
                    await kind.delete(change, name)
                    steps.append(Step(kind=kind.name, name=name, action="delete"))
        if dry_run or all(step.action == "keep" for step in steps):
            change.abandon()
    return steps


def _checked(kinds: Sequence[Kind], documents: Iterable[object]) -> dict[str, dict[str, Any]]:
    known = {kind.name: kind for kind in kinds}
    wanted: dict[str, dict[str, Any]] = {}
    for number, raw in enumerate(documents, 1):
        try:
            document = Document.model_validate(raw)
        except ValidationError as error:
            wrong = validation_error(error)
            raise _at(f"document {number}", wrong) from None
        if document.kind not in known:
            raise BadRequest(
                f"document {number}: kind {document.kind!r} is not one of {', '.join(sorted(known))}.", param="kind"
            )
        where = f"{document.kind} {document.name} (document {number})"
        if document.name in wanted.setdefault(document.kind, {}):
            raise BadRequest(f"{where}: it is there twice.", param="name")
        try:
            wanted[document.kind][document.name] = known[document.kind].parse(document.spec)
        except BadRequest as error:
            raise _at(where, error) from None
    return wanted


def _at(where: str, error: BadRequest) -> BadRequest:
    return BadRequest(f"{where}: {error.message}", param=error.param, code=error.code, hint=error.hint)


async def _located(kind: Kind, name: str, work: Any) -> dict[str, Any]:
    try:
        told: dict[str, Any] = await work
    except BadRequest as error:
        raise _at(f"{kind.name} {name}", error) from None
    return told


def _permit(caller: Principal, kind: str) -> None:
    permission = PERMISSIONS[kind]
    if not allows(caller.roles, permission):
        raise Forbidden(f"{caller.name} may not change a {kind.lower()}: it needs the permission {permission!r}.")


def _compare(kind: Kind, name: str, before: dict[str, Any] | None, after: dict[str, Any]) -> Step:
    if before is None:
        return Step(kind=kind.name, name=name, action="create")
    changes = dict(differences(before, after))
    return Step(kind=kind.name, name=name, action="change" if changes else "keep", changes=changes)


def differences(before: Any, after: Any, path: str = "spec") -> Iterable[tuple[str, tuple[Any, Any]]]:
    """The paths at which two JSON values differ, with both sides; a list counts as one value."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(set(before) | set(after)):
            yield from differences(before.get(name), after.get(name), f"{path}.{name}")
    elif before != after:
        yield path, (before, after)
