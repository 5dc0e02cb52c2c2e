"""The revision of the tables: which one a database has, how it gets the newest, and whether that is what `schema` says.

Called by `engine` at each start, and by `solstice db`.  The one user of Alembic.  Every function works in the
transaction of the connection that it is given; its end is the caller's.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.autogenerate.api import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import func, inspect, select, text
from sqlalchemy.engine import Connection

from solstice.errors import UsageError
from solstice.store.schema import metadata

_config = Config()
# in an option, % begins a reference to another
_config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
_scripts = ScriptDirectory.from_config(_config)
HEAD = str(_scripts.get_current_head())

# An advisory lock of PostgreSQL is a number that any program may use: this is the word "solstice".
_LOCK = int.from_bytes(b"solstice", "big")
# Before there were migrations, a table said the version; the tables were those of revision 0001.
_BEFORE = "schema_version"


def upgrade(db: Connection, shown: str) -> str | None:
    """Bring the tables to `HEAD`; the revision that they had, None if there were none.

    Of two processes that come at the same time the second waits, and finds nothing to do.  Raises `UsageError` about
    the database `shown` if a newer Solstice has made its tables.
    """
    if db.dialect.name == "postgresql":
        # a large table takes as long as it takes, and so does whoever is at it now
        db.execute(text("SET LOCAL statement_timeout = 0"))
        # in SQLite every transaction of ours is the only one
        db.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    found = current(db)
    if found == HEAD:
        return found
    refuse_newer(found, shown)
    _config.attributes["connection"] = db
    if found is not None and inspect(db).has_table(_BEFORE):
        command.stamp(_config, found)
        db.execute(text(f"DROP TABLE {_BEFORE}"))
    command.upgrade(_config, HEAD)
    return found


def current(db: Connection) -> str | None:
    """The revision of the tables, whether we know it or not; None if there are none."""
    if inspect(db).has_table(_BEFORE):
        return f"{db.execute(text(f'SELECT version FROM {_BEFORE}')).scalar_one():04}"  # noqa: S608
    found: str | None = MigrationContext.configure(db).get_current_revision()
    return found


def refuse_newer(found: str | None, shown: str) -> None:
    """Raises `UsageError` if no revision that we know is `found`, which the database `shown` has."""
    if found is not None and found not in (script.revision for script in _scripts.walk_revisions()):
        raise UsageError(
            f"the database {shown} cannot be used",
            f"its tables have version {found}, and this Solstice knows version {HEAD}",
            "install the newer Solstice again, or restore the database from before the upgrade",
        )


def differences(db: Connection) -> list[str]:
    """What the tables have that `schema` has not, and the other way round; nothing if they are at `HEAD`.

    Other tables, such as `sqlite_sequence`, are not looked at.
    """
    opts = {"compare_type": True, "include_name": lambda name, kind, _: kind != "table" or name in metadata.tables}
    return [str(difference) for difference in compare_metadata(MigrationContext.configure(db, opts=opts), metadata)]
