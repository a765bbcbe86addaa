"""Where state lives: SQL, blobs and the ledger of limits, each a port with real implementations."""
