"""Evaluators: answers scored after the fact, each loop with an offset of its own."""
