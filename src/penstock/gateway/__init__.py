"""The data plane: one request's way, step by step."""
