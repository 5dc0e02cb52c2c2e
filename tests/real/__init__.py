"""The real servers and guests that tests stand on: each module starts one thing, waits for it, and ends it wholly."""
