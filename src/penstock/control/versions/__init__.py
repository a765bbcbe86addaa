"""Models and versions: rows, aliases, metadata, lineage, signatures, builds."""
