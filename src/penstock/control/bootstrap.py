"""The first start: environments, the admin's key, the demo tenant, the starter models. Every step may be cut off and done again."""

import asyncio
import hashlib
import logging
import os
import secrets
from pathlib import Path

import yaml
from sqlalchemy import select

from penstock.control.apply import read_documents
from penstock.control.context import SYSTEM, Change, Control
from penstock.control.deploy.record import Promotion, promote
from penstock.control.keys import PREFIX, create_key, key_text
from penstock.control.kinds import ResourceKind
from penstock.control.people import create_principal
from penstock.control.specs.resources import ENVIRONMENTS, Document, KeySpec
from penstock.control.storage.local_files import file_digests, file_pieces
from penstock.control.storage.uploads import begin_upload, commit_upload, missing_of
from penstock.control.versions.datasets import DataSetKind
from penstock.control.versions.rows import new_version
from penstock.core.digests import hash_secret
from penstock.core.errors import BadRequest, Damaged, Unavailable
from penstock.core.references import Reference, parse_reference
from penstock.registry.builds import FOLDERS
from penstock.registry.schemes import compare, parse_label
from penstock.store.schema import deployments, keys, principals, resources, versions
from penstock.store.schema_versions import dataset_revisions

_LOG = logging.getLogger("penstock.control")
DEMO = "demo"
ADMIN = "admin"
PRICES = "prices.yaml"  # in the starter's folder: a price for each NAME:LABEL
METADATA = "metadata.yaml"  # what each says of itself
DATASETS = "datasets.yaml"  # records of the data that these name: documents of kind DataSet
REFUSALS = "refusals.yaml"  # and the patterns by which refusals are known
_DESCRIPTIONS = {
    "dev": "For trying out.",
    "staging": "The last look before production.",
    "production": "What people use.",
}


def read_or_write_secret(path: Path, fresh: str, *, mode: int = 0o600) -> str:
    """The line in the file `path`, which is made with `fresh` if it is not there; by default only its owner may read it.

    Raises:
        Damaged: if the file is empty.
        Unavailable: if it cannot be read or written.
    """
    try:
        if not path.exists():
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                os.fchmod(file.fileno(), mode)
                file.write(fresh + "\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(f"{path} cannot be read or written: {error}.") from None
    if not text:
        raise Damaged(f"{path} is empty; restore it, or remove it to have a new one made.")
    return text


async def bootstrap(control: Control, *, starter: Path | None) -> None:
    """Do what is missing of the first start.

    Args:
        control: the stores.
        starter: a folder with a folder for each starter version (`support-bot-v1.1.0`); None: no demo tenant and no models.

    Raises:
        PenstockError: what did not go, as a sentence.
    """
    async with control.change(SYSTEM) as change:
        wrote = await _environments(change)
        wrote |= await _key(
            control,
            change,
            ADMIN,
            KeySpec(tenant=None, principal=None, models=None, expires_at=None),
            principal=ADMIN,
        )
        if starter is not None:
            wrote |= await _demo(control, change)
        if not wrote:
            change.abandon()
    if starter is not None:
        await register_starter(control, starter)


async def _environments(change: Change) -> bool:
    kind = ResourceKind("Environment", "environments")
    there = await kind.current(change.connection)
    missing = [name for name in ENVIRONMENTS if name not in there]
    for name in missing:
        await kind.put(change, name, kind.parse({"description": _DESCRIPTIONS[name]}), "system")
    return bool(missing)


async def _key(control: Control, change: Change, name: str, spec: KeySpec, *, principal: str | None = None) -> bool:
    """See that the key in the file of this name is there; a new one of a `principal` is that administrator's."""
    path = control.data / f"{name}.key"
    text = read_or_write_secret(path, key_text(control.entropy(32)))
    if not text.startswith(PREFIX):
        raise Damaged(f"{path} holds no key; restore it, or remove it to have a new one made.")
    statement = select(keys.c.id).where(keys.c.hash == hash_secret(text))
    if (await change.connection.execute(statement)).one_or_none() is not None:
        return False
    if principal is not None:
        known = select(principals.c.name).where(principals.c.name == principal, principals.c.disabled_at.is_(None))
        if (await change.connection.execute(known)).one_or_none() is None:
            await create_principal(change, principal, ("admin",), origin="system")
        spec = spec.model_copy(update={"principal": principal})
    await create_key(change, name, spec, text=text, origin="system")
    return True


async def _demo(control: Control, change: Change) -> bool:
    kind = ResourceKind("Tenant", "tenants")
    wrote = False
    statement = select(resources.c.name).where(resources.c.kind == "Tenant", resources.c.name == DEMO)
    known = (await change.connection.execute(statement)).one_or_none() is not None
    if not known:
        made = await change.connection.execute(select(keys.c.id).where(keys.c.name == DEMO))
        if made.first() is not None:
            return False  # somebody removed the tenant on purpose
        await kind.put(change, DEMO, kind.parse({}), "system")
        wrote = True
    spec = KeySpec(tenant=DEMO, principal=None, models=None, expires_at=None)
    return await _key(control, change, DEMO, spec) or wrote


async def register_starter(control: Control, folder: Path) -> None:
    """Register every version in `folder`, with its metadata, price and refusals, and the data sets that these name, and promote the newest of each model that nothing is deployed of.

    Raises:
        PenstockError: if a folder holds what is no version.
    """
    found: dict[str, list[str]] = {}
    await _register_data(control, folder / DATASETS)
    facts = await asyncio.to_thread(_by_version, folder / METADATA)
    told = {
        "price": await asyncio.to_thread(_by_version, folder / PRICES),
        "refusals": await asyncio.to_thread(_by_version, folder / REFUSALS),
    }
    for path in sorted(await asyncio.to_thread(_versions_in, folder)):
        reference = parse_reference(path.name)
        assert reference.label is not None
        name = f"{reference.name}:{reference.label}"
        said = facts.get(name)
        metadata = {**(said if isinstance(said, dict) else {})}
        metadata |= {field: values[name] for field, values in told.items() if name in values}
        await _register(control, path, reference.name, reference.label, metadata)
        found.setdefault(reference.name, []).append(reference.label)
    environment = control.settings.control.environment
    for model, labels in found.items():
        best = labels[0]
        for label in labels[1:]:
            if compare(parse_label(label), parse_label(best)) > 0:
                best = label
        async with control.change(SYSTEM) as change:
            statement = select(deployments.c.model).where(deployments.c.model == model)
            if (await change.connection.execute(statement)).first() is not None:
                change.abandon()
                continue
            wish = Promotion(
                reference=Reference(name=model, label=best), environment=environment, reason="The first start."
            )
            await promote(change, wish, own_environment=environment)
            _LOG.info("promoted %s:%s to %s", model, best, environment)


async def _register_data(control: Control, file: Path) -> None:
    """Register the data sets in `file` whose names were never used."""
    if not await asyncio.to_thread(file.is_file):
        return
    kind = DataSetKind()
    async with control.change(SYSTEM) as change:
        known = set((await change.connection.execute(select(dataset_revisions.c.name))).scalars())
        wrote = False
        for raw in read_documents(await asyncio.to_thread(file.read_text)):
            document = Document.model_validate(raw)
            if document.kind == kind.name and document.name not in known:
                await kind.put(change, document.name, kind.parse(document.spec), "system")
                wrote = True
        if not wrote:
            change.abandon()


def _versions_in(folder: Path) -> list[Path]:
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            reference = parse_reference(path.name)
        except BadRequest:
            continue
        if reference.label is None or not path.is_dir():
            continue
        if any((path / build).is_dir() for build in FOLDERS):
            found.append(path)
        else:
            _LOG.warning("%s holds no build (%s) and is left out", path, ", ".join(FOLDERS))
    return found


def _by_version(file: Path) -> dict[str, object]:
    try:
        found = yaml.safe_load(file.read_text()) if file.is_file() else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Damaged(f"{file} cannot be read: {error}.") from None
    if not isinstance(found, dict):
        raise Damaged(f"{file} must hold one value for each NAME:LABEL.")
    return found


async def _register(control: Control, path: Path, model: str, label: str, metadata: dict[str, object]) -> None:
    statement = select(versions.c.digest).where(versions.c.model == model, versions.c.label == label)
    async with control.database.read() as connection:
        if (await connection.execute(statement)).one_or_none() is not None:
            return
    try:
        files = await asyncio.to_thread(file_digests, path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error}.") from None
    new = new_version(model, label, files, metadata, f"starter {model}:{label} {_mark(files)}")
    upload = await begin_upload(control, new, SYSTEM)
    missing = set((await missing_of(control, upload)).files)
    for name, (digest, size) in files.items():
        if digest in missing:
            await control.blobs.put_new(digest, file_pieces(path / name), size=size)
    await commit_upload(control, upload.id, SYSTEM)
    _LOG.info("registered %s:%s", model, label)


def _mark(files: dict[str, tuple[str, int]]) -> str:
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]
