"""What hardware a load needs (pure)."""
