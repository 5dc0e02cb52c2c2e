"""`python -m solstice.images`: started by the supervisor with its channel as standard input, never by a person."""

from solstice.images.child import main

main()
