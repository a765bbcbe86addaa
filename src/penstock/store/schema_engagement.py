"""The tables of sessions, engagement and conversions; on the same metadata as `schema`."""

from sqlalchemy import BigInteger, Column, Double, Index, String, Table

from penstock.store.schema import NAME, metadata

# The newest session of each visitor, as long as it may go on.
visits = Table(
    "visits",
    metadata,
    Column("tenant", NAME, primary_key=True),
    Column("visitor", String(128), primary_key=True),  # s:SESSION or u:USER, hashed names
    Column("began", Double, nullable=False),
    Column("last", Double, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("route", NAME, nullable=False),
    Column("version", String(255), nullable=False),
    Index(None, "last"),
)

# What came of sessions, by the minute in which they began, and of words said, by that in which they came. Minute 0: since ever.
engagement_minute = Table(
    "engagement_minute",
    metadata,
    Column("minute", BigInteger, primary_key=True, autoincrement=False),  # since 1970
    Column("tenant", NAME, primary_key=True),
    Column("route", NAME, primary_key=True),
    Column("version", String(255), primary_key=True),
    Column("sequence", BigInteger, nullable=False),  # of ingest, when the row began
    Column("sessions", BigInteger, nullable=False),
    Column("engaged", BigInteger, nullable=False),  # sessions with a second answered request
    Column("session_requests", BigInteger, nullable=False),
    Column("session_ms", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("conversions", BigInteger, nullable=False),
    Column("feedback", BigInteger, nullable=False),
    Column("reports", BigInteger, nullable=False),
)
