"""The tables of the analytical store: their columns, and how a record becomes a row. No content: neither prompts nor answers nor texts.

Columns are only ever added, at the end, and `SCHEMA` counts up with them: files of an older one are read with NULL in what they lack.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal
from urllib.parse import quote

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock.core.exchange import Exchange, Observation, Phases
from penstock.journal.format import Position
from penstock.journal.spans import trace_of

SCHEMA = 2
TableName = Literal["exchanges", "observations"]
TABLES: tuple[TableName, ...] = ("exchanges", "observations")
_DAY_S = 86400


class Row(msgspec.Struct, frozen=True):
    """A record with its place in a worker's journal."""

    worker: str
    position: Position
    record: Exchange | Observation


class Column(msgspec.Struct, frozen=True):
    """One column: its name, its type in SQL, what it holds, and how it is had."""

    name: str
    type: str
    help: str
    read: Callable[[Any], Any]


def _since(before: str, name: str) -> Callable[[Exchange], float | None]:
    """The length of a phase in milliseconds; None if it was not reached. Phases that were not reached have no length of their own."""
    names = Phases.__struct_fields__
    earlier = names[: names.index(before) + 1] if before else ()

    def read(x: Exchange) -> float | None:
        end: int = getattr(x.phases, name)
        if end <= 0:
            return None
        return max(0, end - max((getattr(x.phases, one) for one in earlier), default=0)) / 1e6

    return read


def _milliseconds(name: str) -> Callable[[Exchange], float | None]:
    return lambda x: getattr(x.phases, name) / 1e6 or None


def _trace_id(x: Exchange) -> str:
    return trace_of(x).hex()


def _of(name: str) -> Callable[[Any], Any]:
    return lambda record: getattr(record, name)


def _seen(name: str) -> Callable[[Exchange], Any]:
    """What the engine saw of the answer's quality; None if it did not look."""
    return lambda x: None if x.quality is None else getattr(x.quality, name)


def _engine(name: str) -> Callable[[Exchange], float | None]:
    """The length of a phase of the engine in milliseconds; None if the engine did not tell."""
    return lambda x: None if x.engine is None else getattr(x.engine, name) / 1e6


def _pair(field: str, none: Any) -> Callable[[Exchange], Any]:
    """The field of the other answer to the same request; `none` if there is no such."""

    def read(x: Exchange) -> Any:
        return none if x.pair is None else getattr(x.pair, field)

    return read


def _similarity(x: Exchange) -> float | None:
    return None if x.pair is None or x.pair.similarity < 0 else x.pair.similarity / 1e6


def _text(name: str, help_: str, field: str = "") -> Column:
    return Column(name, "VARCHAR", help_, _of(field or name))


EXCHANGES: tuple[Column, ...] = (
    _text("id", "Of the request, as in `x-penstock-request-id`."),
    Column("started", "TIMESTAMP", "When its first byte came, UTC.", _of("at")),
    _text("operation", "chat, completions, embeddings, responses."),
    _text("key", "Id of the key."),
    _text("user_hash", "Keyed hash of the request's `user`.", "user"),
    _text("session", "As the client named it."),
    _text("model", "As asked for."),
    _text("route", "That it went by."),
    _text("experiment", "That it was in; empty: none."),
    _text("arm", "Of the experiment."),
    Column("epoch", "INTEGER", "Of the experiment.", _of("epoch")),
    Column("propensity", "DOUBLE", "Probability of this arm.", _of("propensity")),
    _text("unit", "Of assignment, hashed."),
    _text("pool", "That answered."),
    _text("replica", "That answered."),
    _text("version", "NAME:LABEL."),
    _text("digest", "Of the weights that answered."),
    Column("stream", "BOOLEAN", "Whether a stream was asked for.", _of("stream")),
    Column("status", "SMALLINT", "HTTP status; 0: the client left before.", _of("status")),
    _text("outcome", "ok, refused, error, cancelled, truncated, crashed."),
    _text("error", "Error code; empty: none."),
    _text("finish", "Finish reason of the first choice."),
    Column("decode_ms", "DOUBLE", "Phase: reading and decoding.", _since("", "decoded")),
    Column("admit_ms", "DOUBLE", "Phase: checks, screening, the queue.", _since("decoded", "admitted")),
    Column("dispatch_ms", "DOUBLE", "Phase: sending to the replica.", _since("admitted", "dispatched")),
    Column("wait_ms", "DOUBLE", "Phase: until the answer's first byte.", _since("dispatched", "first_token")),
    Column("answer_ms", "DOUBLE", "Phase: from its first byte to its last.", _since("first_token", "last_token")),
    Column("settle_ms", "DOUBLE", "Phase: settling.", _since("last_token", "done")),
    Column("first_token_ms", "DOUBLE", "From the request's first byte to the answer's.", _milliseconds("first_token")),
    Column("latency_ms", "DOUBLE", "From first byte to last: the phases' sum.", _milliseconds("done")),
    Column("prompt_tokens", "INTEGER", "As the engine counted.", lambda x: x.usage.prompt),
    Column("completion_tokens", "INTEGER", "As the engine counted.", lambda x: x.usage.completion),
    Column("cached_tokens", "INTEGER", "Of the prompt, from the engine's prefix cache.", lambda x: x.usage.cached),
    Column("chunks", "INTEGER", "Pieces of the stream.", _of("chunks")),
    Column("cost_nanousd", "BIGINT", "Cost in 1e-9 US dollars.", _of("cost_nanousd")),
    _text("cache", "off, miss, hit, semantic, coalesced."),
    Column("attempts", "SMALLINT", "Replicas that were asked.", _of("attempts")),
    Column("hedged", "BOOLEAN", "A second replica was asked too.", _of("hedged")),
    Column("fallback", "BOOLEAN", "By a pool that the route falls back to.", _of("fallback")),
    Column("resumed", "SMALLINT", "How often another replica went on.", _of("resumed")),
    Column("findings", "INTEGER", "What content rules found.", lambda x: sum(f.count for f in x.findings)),
    Column("rules", "VARCHAR", "Rules that found it, with commas.", lambda x: ",".join(f.rule for f in x.findings)),
    Column("trace_id", "VARCHAR", "Of its spans; the caller's, or one that follows from the request's id.", _trace_id),
    Column("generation", "BIGINT", "Of the Snapshot that decided.", _of("generation")),
    Column("escalated", "BOOLEAN", "A cascade asked its second model.", _of("escalated")),
    Column("trimmed", "INTEGER", "Turns that were left out.", _of("trimmed")),
    _text(
        "context",
        "Of a bandit: whose shares gave the propensity. @audience, @holdout, @namespace: why it took no part.",
    ),
    Column("copy_of", "VARCHAR", "Of a shadow's copy: the request; empty: a user's own.", _pair("of", "")),
    Column("beside", "VARCHAR", "Another arm that answered the same request; empty: none.", _pair("arm", "")),
    Column("beside_cost_nanousd", "BIGINT", "Cost of its answer.", _pair("cost_nanousd", None)),
    Column("similarity", "DOUBLE", "Of both answers, 0 to 1; NULL: not compared.", _similarity),
    Column(
        "scored_tokens", "INTEGER", "Tokens whose probability the engine told; NULL: it did not look.", _seen("scored")
    ),
    Column("logprob", "DOUBLE", "Sum of the natural logarithms of these.", _seen("logprob")),
    Column("perplexity", "DOUBLE", "exp(-logprob / scored_tokens).", _seen("perplexity")),
    Column("repetition", "DOUBLE", "Share of its runs of three tokens that it had before.", _seen("repetition")),
    Column("refused_to_answer", "BOOLEAN", "A refusal, by the patterns declared for the model.", _seen("refused")),
    Column(
        "engine_preprocess_ms",
        "DOUBLE",
        "In the engine: template and tokens; NULL: it did not tell.",
        _engine("preprocess"),
    ),
    Column("engine_queue_ms", "DOUBLE", "In the engine: until its pipeline took it.", _engine("queue")),
    Column("engine_prefill_ms", "DOUBLE", "In the engine: until its first token.", _engine("prefill")),
    Column("engine_decode_ms", "DOUBLE", "In the engine: until its last token.", _engine("decode")),
    Column("engine_postprocess_ms", "DOUBLE", "In the engine: until it was told.", _engine("postprocess")),
)
OBSERVATIONS: tuple[Column, ...] = (
    _text("id", "The caller's idempotency id."),
    Column("happened", "TIMESTAMP", "When it happened, UTC.", _of("at")),
    Column("received", "TIMESTAMP", "When it was told, UTC.", _of("received")),
    _text("kind", "feedback, event, report, preference."),
    _text("key", "Id of the key."),
    _text("request", "Id of the exchange that it is about."),
    _text("user_hash", "Keyed hash.", "user"),
    _text("name", "Of an event; reason of a report."),
    Column("rating", "DOUBLE", "Of feedback.", _of("rating")),
    Column("success", "BOOLEAN", "Of feedback.", _of("success")),
    Column("value", "DOUBLE", "Of an event.", _of("value")),
    Column(
        "text_chars", "INTEGER", "Length of its text, which is not kept here.", lambda o: o.text_chars or len(o.text)
    ),
    Column(
        "corrected", "BOOLEAN", "Whether a better answer was given.", lambda o: bool(o.corrected_chars or o.corrected)
    ),
    Column("consent", "BOOLEAN", "To its use for training.", _of("consent")),
)
PLACE: tuple[tuple[str, str], ...] = (("worker", "VARCHAR"), ("segment", "INTEGER"), ("position", "BIGINT"))
COLUMNS: dict[TableName, tuple[Column, ...]] = {"exchanges": EXCHANGES, "observations": OBSERVATIONS}
ORDER: dict[TableName, str] = {  # which of several rows with one id stays
    "exchanges": "outcome = 'crashed', started DESC, segment, position",
    "observations": "received, worker, segment, position",
}

TIME: dict[TableName, str] = {"exchanges": "started", "observations": "received"}  # what merged files are sorted by


def types_of(table: TableName) -> list[tuple[str, str]]:
    """Names and types of the columns that a file of `table` has."""
    return [(column.name, column.type) for column in COLUMNS[table]] + list(PLACE)


def table_of(record: Exchange | Observation) -> TableName:
    """The table that `record` is a row of."""
    return "exchanges" if isinstance(record, Exchange) else "observations"


def day_of(record: Exchange | Observation) -> str:
    """The UTC day of `record`, YYYY-MM-DD: of an observation, when it was received, since callers' clocks may say anything."""
    at = record.at if isinstance(record, Exchange) else record.received
    return str(np.datetime64(int(at // _DAY_S), "D"))


def folder_of(table: TableName, day: str, tenant: str) -> str:
    """The folder of a partition, below the store's."""
    return f"{table}/day={day}/tenant={quote(tenant, safe='')}"


def columns_of(table: TableName, rows: Sequence[Row]) -> dict[str, NDArray[Any]]:
    """`rows` as one array a column. Times are microseconds."""
    records = [row.record for row in rows]
    made: dict[str, NDArray[Any]] = {}
    for column in COLUMNS[table]:
        values = [column.read(record) for record in records]
        if column.type == "TIMESTAMP":
            made[column.name] = np.array([round(value * 1e6) for value in values], "datetime64[us]")
        elif column.type == "VARCHAR" or None in values:
            made[column.name] = _objects(values)
        else:
            made[column.name] = np.array(values)
    made["worker"] = _objects([row.worker for row in rows])
    made["segment"] = np.array([row.position.segment for row in rows], np.int32)
    made["position"] = np.array([row.position.offset for row in rows], np.int64)
    return made


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    made = np.empty(len(values), object)
    made[:] = values
    return made
