"""What may go in and out: rules, incremental scanner, masking (pure)."""
