"""Benchmarks: measured in one run beside real peers, printed as ratios."""
