"""The tables of keys that control keeps for several hosts; on the same metadata as `schema`. Keys are wrapped; hashes are hexadecimal digits."""

from sqlalchemy import BigInteger, Column, Double, Index, LargeBinary, String, Table

from penstock.store.schema import metadata

# The keys of all hosts, as their slots have them (`journal.keyslots`).
subject_keys = Table(
    "subject_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("subject", String(32), nullable=False),
    Column("tenant", String(16), nullable=False),
    Column("made_at", Double, nullable=False),
    Column("head", LargeBinary, nullable=False),  # what the key is bound to
    Column("wrapped", LargeBinary, nullable=False),  # empty: the key was destroyed
    Column("destroyed_at", Double),
    Index(None, "subject"),
    Index(None, "tenant"),
)

# Whom to forget, in order; subject "": all of the tenant's.
key_orders = Table(
    "key_orders",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", String(16), nullable=False),
    Column("subject", String(32), nullable=False),
    Column("at", Double, nullable=False),
    Index(None, "tenant", "subject"),
)

# The hosts that have keys, and up to which order each has carried them out.
key_hosts = Table(
    "key_hosts",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("applied", BigInteger, nullable=False),
    Column("slots", BigInteger, nullable=False),  # that it has handed over
    Column("at", Double, nullable=False),  # when it was last heard of
)
