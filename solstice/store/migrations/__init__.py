"""Every form the tables have had, for Alembic: `env` and one file per revision in `versions`.

They are run by `solstice.store.migrate` and by nothing else; there is no alembic.ini.  A new revision is the next
number in `versions`, with the same change in `schema`.  A revision never imports `schema`: that changes, and a revision
must not.
"""
