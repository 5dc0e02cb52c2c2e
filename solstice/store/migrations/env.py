"""Alembic executes this file for every command: it runs the revisions on the connection that `migrate` gives.

That connection is in a transaction already, which holds the lock; Alembic neither begins nor commits one.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
