"""Files of versions: pushed in blocks, kept small, checked, swept."""
