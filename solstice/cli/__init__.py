"""The command line: one file per command.  Layer 7, the composition root.

`main` is the entry and the one place where an error becomes text and an exit code; `options` makes flags of the
settings' table; `client` speaks to a running supervisor; `operators` has what its commands share, `words` and `table`
how they speak; `follow` shows a log as it grows; `exits` has the exit codes.
"""
