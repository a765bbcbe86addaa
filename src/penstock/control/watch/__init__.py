"""Alerts and drift: what was told or noticed, kept, and acted on."""
