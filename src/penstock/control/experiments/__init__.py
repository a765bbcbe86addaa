"""Experiments: their life, the loop that judges them, and what gateways are told of them."""
