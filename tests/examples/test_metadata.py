"""What the starter versions say of themselves is taken, and the digests of their data are those of the data."""

from pathlib import Path

import pytest
import yaml

from penstock.cli.datasets import digest_of
from penstock.control.specs.version import DataSetSpec, check_version_metadata
from penstock.registry.card import parse_card
from penstock.registry.card_template import Filling, template_card

EXAMPLE = Path(__file__).parents[2] / "examples" / "support_bot"
MODELS = EXAMPLE / "models"
RECORDS = [one for one in yaml.safe_load_all((MODELS / "datasets.yaml").read_text()) if one is not None]


@pytest.mark.parametrize("record", RECORDS, ids=lambda one: str(one["name"]))
def test_a_record_names_the_data_that_is_there(record: dict) -> None:
    spec = DataSetSpec.model_validate(record["spec"])
    assert (spec.digest, spec.size) == digest_of(EXAMPLE.parents[1] / spec.location), "penstock datasets digest"


def test_every_starter_version_tells_what_it_is_and_names_data_that_is_recorded() -> None:
    told = yaml.safe_load((MODELS / "metadata.yaml").read_text())
    names = {record["name"] for record in RECORDS}
    assert {name.replace(":", "-") for name in told} == {path.name for path in MODELS.iterdir() if path.is_dir()}
    for metadata in told.values():
        checked = check_version_metadata(metadata)
        assert {use.dataset for use in checked.training.data} <= names
        assert checked.limitations or checked.intended_use


def test_the_blank_card_is_the_templates() -> None:
    text = (EXAMPLE / "card-template.md").read_text()
    assert text == template_card(Filling(model="NAME", label="LABEL", digest=""))
    assert parse_card(text).metadata == {"model_name": "NAME", "version": "LABEL"}
