"""Figures that people and metrics read out of the tables."""
