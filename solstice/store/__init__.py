"""The store: what was promised, on disk.  Layer 4.

`python -m solstice.store` is a process of its own and the only one with a database handle; what can be asked of it
stands in `solstice.protocol.store`.  `schema` has the tables, `engine` opens them, `moves` has the operations that
change a job and `events` what they tell the world, `queries` the rest and the table of all operations, `group` makes
one transaction of all that is waiting.
"""
