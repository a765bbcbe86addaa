"""The OpenAI format: request envelopes, server-sent events, error bodies."""
