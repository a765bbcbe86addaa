"""Which pool and which replica answer: targets, balance, breaker (pure)."""
