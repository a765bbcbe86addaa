"""From the journal into the tables, exactly once."""
