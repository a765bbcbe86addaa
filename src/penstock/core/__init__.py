"""Values that all rooms share: ids, references, digests, Snapshot, Exchange, errors, settings. Imports nothing of ours."""
