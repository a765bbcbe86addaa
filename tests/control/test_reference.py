"""The pages of the API and of resources name every call and every field."""

import re
from pathlib import Path

import pytest

from penstock.access.principals import ROLES
from penstock.control.specs.evaluator import EvaluatorSpec, ReferencesSpec
from penstock.control.specs.policy import PolicySpec
from penstock.control.specs.resources import EnvironmentSpec, KeySpec, PoolSpec, RouteSpec, Spec, TenantSpec
from penstock.control.specs.version import DataSetSpec
from tests.control.house import House

PAGES = Path(__file__).parents[2] / "docs" / "reference"


async def test_every_call_is_described_and_no_other(small_house: House) -> None:
    page = (PAGES / "api.md").read_text()
    told = {path.partition("?")[0] for path in re.findall(r"(?<![\w}])/[a-z][\w/{}:.]*", page)}
    told = {path.removeprefix("/api/v1") for path in told if not path.endswith(".md")} - {""}
    paths = {path.removeprefix("/api/v1") for path in small_house.app.openapi()["paths"]}
    assert paths - told == set()
    assert told - paths - {"/openapi.json"} == set()


@pytest.mark.parametrize(
    "spec",
    [PoolSpec, RouteSpec, TenantSpec, PolicySpec, EnvironmentSpec, KeySpec, DataSetSpec, EvaluatorSpec, ReferencesSpec],
)
def test_every_field_of_a_resource_is_described_and_no_other(spec: type[Spec]) -> None:
    kind = spec.__name__.removesuffix("Spec")
    section = (PAGES / "resources.md").read_text().split(f"\n## {kind}\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(spec.model_fields)


def test_every_role_is_described() -> None:
    section = (PAGES / "api.md").read_text().split("\n## Roles\n")[1]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(ROLES)
