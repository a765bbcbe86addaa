"""Where replicas run: local processes first."""
