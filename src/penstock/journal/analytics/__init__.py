"""The analytical store: what the journal tells, as Parquet files by day and tenant, and SQL over them."""
