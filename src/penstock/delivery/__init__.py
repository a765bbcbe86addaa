"""What to do next in an environment: promotion, roll-back, ramp, reconciliation plans (pure)."""
