"""What the API tells of versions beside themselves: aliases, lineage, differences, data sets, what stands behind an answer."""

from typing import Any

import msgspec


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """A name that moves."""

    alias: str
    label: str
    digest: str
    moved_at: float = 0.0
    moved_by: str = ""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One thing of a graph; `depth` below 0: what the asked one came of."""

    id: str
    kind: str
    digest: str = ""
    depth: int = 0


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """`source` is `relation` `target`."""

    source: str
    relation: str
    kind: str
    target: str
    target_digest: str = ""


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """What a version came of and what came of it."""

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()


class Lacking(msgspec.Struct, frozen=True, kw_only=True):
    """What a card does not say."""

    what: str
    wanted_for: str
    command: str


class CardCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a card is complete."""

    complete: bool = True
    complete_for_production: bool = True
    lacking: tuple[Lacking, ...] = ()


class CardRevision(msgspec.Struct, frozen=True, kw_only=True):
    """One edit of a card."""

    number: int
    principal: str
    at: float
    reason: str = ""


class Custodian(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers for data."""

    name: str
    since: str = ""
    until: str = ""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What was done to make data."""

    what: str
    by: str = ""
    at: str = ""
    code: str = ""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One link of a chain of custody."""

    name: str
    digest: str
    source: str = ""
    licence: str = ""
    custodians: tuple[Custodian, ...] = ()
    transformations: tuple[Made, ...] = ()
    registered_by: str = ""
    registered_at: float = 0.0


class Custody(msgspec.Struct, frozen=True, kw_only=True):
    """A chain of custody, origins first, and what nobody has told."""

    links: tuple[Link, ...] = ()
    gaps: tuple[str, ...] = ()


class DataSet(msgspec.Struct, frozen=True, kw_only=True):
    """A data set."""

    name: str
    digest: str
    number: int = 1
    spec: dict[str, Any] = {}
    updated_at: float = 0.0
    custody: Custody = Custody()
    versions: tuple[str, ...] = ()


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of two versions."""

    model: str
    label: str
    digest: str


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that is not the same in both."""

    name: str
    change: str
    shape: tuple[int, ...] = ()
    new_shape: tuple[int, ...] = ()
    dtype: str = ""
    new_dtype: str = ""
    relative: float | None = None
    cosine: float | None = None


class Tensors(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    same: int = 0
    changed: tuple[Tensor, ...] = ()
    relative: float | None = None


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric in both."""

    name: str
    before: float | None = None
    after: float | None = None
    better: bool | None = None
    clear: bool | None = None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What differs."""

    tensors: Tensors = Tensors()
    tokenizer: dict[str, Any] = {}
    template: tuple[str, ...] = ()
    config: dict[str, tuple[Any, Any]] = {}
    generation: dict[str, tuple[Any, Any]] = {}
    metadata: dict[str, tuple[Any, Any]] = {}
    processing: dict[str, tuple[Any, Any]] = {}
    metrics: tuple[Metric, ...] = ()
    card: tuple[str, ...] = ()
    files_added: tuple[str, ...] = ()
    files_removed: tuple[str, ...] = ()
    files_changed: tuple[str, ...] = ()


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """The bump that is called for."""

    bump: str | None = None
    reasons: tuple[str, ...] = ()


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """Two versions compared."""

    a: Side
    b: Side
    difference: Difference
    suggestion: Suggestion


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one gate said."""

    gate: str
    state: str = ""
    words: str = ""


class Gates(msgspec.Struct, frozen=True, kw_only=True):
    """What the gates said when a revision was made."""

    outcomes: tuple[Outcome, ...] = ()
    overridden_by: str | None = None
    reason: str = ""


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody's word for a version."""

    principal: str
    at: float
    reason: str = ""


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """The revision by which a version was in an environment."""

    environment: str
    revision: int
    action: str
    principal: str
    reason: str = ""
    live_at: float | None = None
    copies: int | None = None
    gates: Gates | None = None
    approvals: tuple[Approval, ...] = ()


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """The build that answered."""

    precision: str
    engine: str
    digest: str


class Relation(msgspec.Struct, frozen=True, kw_only=True):
    """Which version used data how."""

    version: str
    relation: str


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """Data behind an answer."""

    name: str
    digest: str
    relations: tuple[Relation, ...] = ()
    custody: Custody = Custody()


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """What stands behind an answer."""

    digest: str | None = None
    build: Build | None = None
    deployments: tuple[Deployed, ...] = ()
    data: tuple[Data, ...] = ()


class TestLine(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one test of readiness."""

    __test__ = False  # nothing that pytest would collect

    id: str
    group: str
    name: str
    points: float
    words: str
    command: str = ""


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """The ML Test Score of a version."""

    model: str
    label: str
    environment: str
    score: float
    meaning: str
    groups: dict[str, float] = {}
    lines: tuple[TestLine, ...] = ()
