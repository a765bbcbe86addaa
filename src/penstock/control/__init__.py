"""The control plane: API, registry, loops."""
