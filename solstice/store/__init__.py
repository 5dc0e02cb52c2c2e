"""The store: what was promised, on disk.  Layer 4.

`python -m solstice.store` is a process of its own and the only one with a database handle while a supervisor runs; what
can be asked of it stands in `solstice.protocol.store`.  `schema` has the tables and `migrations` every form they had,
which `migrate` runs; `engine` opens them, under the `lock` of their host and with the patience of `postgresql`.
`moves` has the operations that change a job and `events` what they tell the world, `retention` what is forgotten,
`queries` the rest and the table of all operations; `group` makes one transaction of all that is waiting.
"""
