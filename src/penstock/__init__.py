"""Penstock takes a trained language model to production and keeps it there."""

__version__ = "0.1.0"
