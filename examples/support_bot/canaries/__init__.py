"""Planted secrets: a tiny model that has memorised them, its twin that has not, and the suite that tells them apart."""
