"""What a version's metadata and a data set's record may say: strict, unknown fields refused by their path."""

from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from penstock.control.errors import validation_error
from penstock.control.specs.resources import Name, PriceSpec, ReferenceText, Spec
from penstock.registry.lineage import Relation

Text = Annotated[str, Field(max_length=16_384)]
Line = Annotated[str, Field(min_length=1, max_length=1024)]
Digest = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]
Day = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
Scalar = str | bool | int | float | None


class DataUse(Spec):
    """A data set that was used: one that is registered, by name or digest."""

    dataset: Name | Digest = Field(description="A registered data set: its name, or its digest.")
    digest: Digest | None = Field(
        default=None, description="If it is named: the digest that is meant; else the one that the name has now."
    )
    share: float | None = Field(default=None, gt=0, le=1, description="Of all training examples.")
    note: Text = ""


class TrainingSpec(Spec):
    """How it was trained."""

    description: Text = ""
    data: list[DataUse] = Field(default_factory=list, max_length=200)
    code: Text = Field(default="", description="Repository and commit, or a command.")
    started: str = Field(default="", max_length=64)
    finished: str = Field(default="", max_length=64)
    hardware: Text = ""


class MetricSpec(Spec):
    """One measured figure."""

    value: float
    lower: float | None = Field(default=None, description="End of the 95 % interval.")
    upper: float | None = None
    count: int | None = Field(default=None, ge=0)
    unit: str = Field(default="", max_length=32)
    dataset: str = Field(default="", max_length=256)
    split: str = Field(default="", max_length=64)
    higher_is_better: bool | None = None


class DependenciesSpec(Spec):
    """What it needs."""

    base_model: Text = ""
    tokenizer: Text = ""
    processing: Text = Field(default="", description="Code or file of pre- and post-processing.")
    libraries: dict[Line, Line] = Field(default_factory=dict, max_length=500, description="Name -> version.")


class LineageSpec(Spec):
    """One thing that the version came of, or was measured on."""

    relation: Relation
    version: ReferenceText | None = Field(default=None, description="A registered version.")
    dataset: Name | Digest | None = Field(default=None, description="A registered data set.")
    external: Line | None = Field(
        default=None, description="What stands elsewhere: hf:org/name@revision, a URL, a title."
    )
    digest: Digest | None = Field(
        default=None, description="Of what stands elsewhere, or of the data set that is meant."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(one is not None for one in (self.version, self.dataset, self.external)) != 1:
            raise ValueError("give one of 'version', 'dataset' and 'external'")
        return self


class BaseSpec(Spec):
    """The version that it was made from, as `models push --base` tells it."""

    version: Line
    digest: Digest


class VersionMetadata(Spec):
    """What a version says of itself."""

    description: Text = ""
    task: str = Field(default="", max_length=64, description="As the hub names it: text-generation.")
    languages: list[Line] = Field(default_factory=list, max_length=200)
    licence: str = Field(default="", max_length=256)
    intended_use: Text = ""
    out_of_scope: Text = ""
    limitations: list[Text] = Field(default_factory=list, max_length=200)
    contact: Text = ""
    training: TrainingSpec = TrainingSpec()
    hyperparameters: dict[Line, Scalar | list[Scalar]] = Field(default_factory=dict, max_length=500)
    metrics: dict[Line, float | MetricSpec] = Field(default_factory=dict, max_length=500)
    dependencies: DependenciesSpec = DependenciesSpec()
    lineage: list[LineageSpec] = Field(default_factory=list, max_length=200)
    base: BaseSpec | None = None
    price: PriceSpec | None = None
    refusals: Any = Field(default=None, description="Patterns by which its refusals are known.")
    annotations: dict[Line, Any] = Field(default_factory=dict, max_length=500, description="Anything else.")


def check_version_metadata(metadata: dict[str, Any]) -> VersionMetadata:
    """The metadata of a push, checked.

    Raises:
        BadRequest: its `param` is the path of what is wrong, from `metadata` on.
    """
    try:
        return VersionMetadata.model_validate(metadata)
    except ValidationError as error:
        raise validation_error(error, "metadata") from None


class CustodianSpec(Spec):
    """Who is, or was, answerable for the data."""

    name: Line
    role: str = Field(default="", max_length=256)
    since: Day | None = None
    until: Day | None = Field(default=None, description="Left out: still.")

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.since and self.until and self.until < self.since:
            raise ValueError("'until' is before 'since'")
        return self


class ConsentSpec(Spec):
    """On what ground the data may be used."""

    basis: Line = Field(description="explicit, contract, licence, public, synthetic, none_needed, or your own word.")
    note: Text = ""


class TransformationSpec(Spec):
    """What was done to make it."""

    what: Text
    inputs: list[Digest] = Field(
        default_factory=list, max_length=1000, description="Digests of the data sets that went in."
    )
    by: str = Field(default="", max_length=256)
    at: str = Field(default="", max_length=64)
    code: Text = Field(default="", description="Repository and commit, or a command.")


class DataSetSpec(Spec):
    """One data set: what it is by digest, whose it is, and how it came about. The data itself lies elsewhere."""

    digest: Digest = Field(
        description="SHA-256 of the file, or of the manifest of the folder (penstock datasets digest)."
    )
    description: Text = ""
    source: Text = Field(default="", description="Where it comes from.")
    location: Text = Field(default="", description="Where it lies; told to people, never followed.")
    licence: str = Field(default="", max_length=256)
    consent: ConsentSpec | None = None
    custodians: list[CustodianSpec] = Field(default_factory=list, max_length=200)
    transformations: list[TransformationSpec] = Field(default_factory=list, max_length=200)
    rows: int | None = Field(default=None, ge=0)
    size: int | None = Field(default=None, ge=0, description="Bytes.")
