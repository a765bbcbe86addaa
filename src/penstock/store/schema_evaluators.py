"""The tables of evaluators: how far each has come, what became of what it drew, and answers that wait for another arm's."""

from sqlalchemy import BigInteger, Column, Double, Index, String, Table

from penstock.store.schema import NAME, metadata

# How far each evaluator has come; moved by compare-and-swap, together with what it says.
evaluator_offsets = Table(
    "evaluator_offsets",
    metadata,
    Column("evaluator", NAME, primary_key=True),
    Column("sequence", BigInteger, nullable=False),  # of ingest: all exchanges up to it have been looked at
    Column("at", Double, nullable=False),
)

# What became of the answers that were drawn (`experiments.scoring.Result`); of a comparison of two arms, under the arm for which it counts.
evaluator_counts = Table(
    "evaluator_counts",
    metadata,
    Column("evaluator", NAME, primary_key=True),
    Column("experiment", NAME, primary_key=True),  # "": none
    Column("arm", NAME, primary_key=True),
    Column("result", String(16), primary_key=True),
    Column("count", BigInteger, nullable=False),
)

# What the calls of each have come to, since ever; "": those that were refused before they had a route.
evaluator_usage = Table(
    "evaluator_usage",
    metadata,
    Column("evaluator", NAME, primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cost_nanousd", BigInteger, nullable=False),
)

# Answers that wait for one of another arm to the same question: by a keyed hash of it.
evaluator_waiting = Table(
    "evaluator_waiting",
    metadata,
    Column("evaluator", NAME, primary_key=True),
    Column("experiment", NAME, primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("question", String(64), primary_key=True),
    Column("arm", NAME, primary_key=True),
    Column("request", String(64), nullable=False),
    Column("at", Double, nullable=False),
    Index(None, "at"),
)
