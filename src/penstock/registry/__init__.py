"""What a version is: schemes, manifests, states, cards (pure)."""
