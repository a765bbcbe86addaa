"""Webhooks: what others are told of changes, from the transaction of the change to their answer."""
