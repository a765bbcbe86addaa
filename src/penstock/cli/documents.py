"""Files that people write for the API: YAML documents and specs."""

import sys
from pathlib import Path
from typing import Any

import click

from penstock.core.errors import BadRequest

file_argument = click.Path(exists=True, dir_okay=False, allow_dash=True)


def read_text(path: str) -> str:
    """The text of the file at `path`; `-` is stdin.

    Raises:
        BadRequest: if it is no UTF-8.
    """
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadRequest(f"{path} is not UTF-8 text.", param=path) from None


def read_document(path: str) -> dict[str, Any]:
    """The one YAML (or JSON) mapping in the file at `path`.

    Raises:
        BadRequest: if it holds something else.
    """
    import yaml

    from penstock.core.plain_yaml import PlainLoader

    class Plain(PlainLoader):
        """Dates stay text, as in JSON."""

    Plain.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    try:
        found = [document for document in yaml.load_all(read_text(path), Loader=Plain) if document is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark is not None else ""
        raise BadRequest(f"{path} is not YAML{place}: {getattr(error, 'problem', error)}.", param=path) from None
    if len(found) != 1 or not isinstance(found[0], dict):
        raise BadRequest(f"{path} should hold one document, a mapping of names to values.", param=path)
    return found[0]


def read_spec(path: str, kind: str) -> dict[str, Any]:
    """The spec in the file at `path`: a whole document of `kind`, or its `spec` alone.

    Raises:
        BadRequest: if it is a document of another kind.
    """
    document = read_document(path)
    if "kind" not in document:
        return document
    if document["kind"] != kind:
        raise BadRequest(f"{path} is a {document['kind']}, not a {kind}.", param=path)
    spec = document.get("spec")
    return spec if isinstance(spec, dict) else {}
