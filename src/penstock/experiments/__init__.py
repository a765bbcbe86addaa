"""Who sees which arm, and what the numbers say: assignment, statistics, verdicts (pure)."""
