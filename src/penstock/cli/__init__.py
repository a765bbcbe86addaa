"""The command line: one file a group of commands, each a thin client of the API or of `compose`."""
