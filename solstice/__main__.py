"""`python -m solstice`: the command line."""

from solstice.cli.main import main

main()
