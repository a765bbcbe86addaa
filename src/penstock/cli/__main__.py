"""`python -m penstock.cli`: how the supervisor starts its processes."""

from penstock.cli.main import main

main()
