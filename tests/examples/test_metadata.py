"""What the starter versions say of themselves is taken, and the digests of their data are those of the data."""

import re
from pathlib import Path

import pytest
import yaml

from examples.support_bot.figures import END, METRICS, START, Share, as_metrics
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


@pytest.mark.parametrize("label", ["v1.0.0", "v1.1.0", "v1.1.0-distilled"])
def test_the_metrics_of_a_version_are_those_of_its_card(label: str) -> None:
    card = (MODELS / f"support-bot-{label}" / "README.md").read_text()
    rows = re.findall(r"^\| (.+?) \|.*\| (\d+) of (\d+) \|$", card.split(START)[1].split(END)[0], re.MULTILINE)
    shares = {name: Share(hits=int(hits), total=int(total)) for name, hits, total in rows}
    told = yaml.safe_load((MODELS / "metadata.yaml").read_text())[f"support-bot:{label}"]["metrics"]
    assert {name: told[name] for name in METRICS} == as_metrics(shares, "larkfield-questions")


def test_the_distilled_version_is_a_third_of_its_teacher_and_reads_as_it_does() -> None:
    teacher, student = (MODELS / f"support-bot-{label}" for label in ("v1.1.0", "v1.1.0-distilled"))
    for file in ("safetensors/model.safetensors", "openvino-int8/openvino_model.bin"):
        assert 3 * (student / file).stat().st_size <= (teacher / file).stat().st_size, file
    for file in ("safetensors/tokenizer.json", "safetensors/tokenizer_config.json"):
        assert (student / file).read_bytes() == (teacher / file).read_bytes()
    told = yaml.safe_load((MODELS / "metadata.yaml").read_text())["support-bot:v1.1.0-distilled"]
    assert {"relation": "distilled_from", "version": "support-bot:v1.1.0"} in told["lineage"]
    lost = told["metrics"]["right_against_teacher"]
    assert (
        f"| {100 * lost['value']:+.1f} | {100 * lost['lower']:+.1f} to {100 * lost['upper']:+.1f} | {lost['count']} |"
        in (student / "README.md").read_text()
    ), "its loss is the one that its card tells"


def test_what_is_shipped_stays_small() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 64e6


def test_the_blank_card_is_the_templates() -> None:
    text = (EXAMPLE / "card-template.md").read_text()
    assert text == template_card(Filling(model="NAME", label="LABEL", digest=""))
    assert parse_card(text).metadata == {"model_name": "NAME", "version": "LABEL"}
