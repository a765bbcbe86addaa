"""The embedded model server, and adapters to other engines."""
