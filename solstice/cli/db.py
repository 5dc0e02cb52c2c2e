"""`solstice db`: the tables of the database, and how long it remembers.

A supervisor's store brings its tables up to date by itself: `upgrade`, `current` and `check` work on the database, and
are for looking, and for doing it before.  `prune` asks the supervisor, and does it itself where none is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
from sqlalchemy.engine import Engine

from solstice.cli import client, options
from solstice.config import parsers
from solstice.errors import SolsticeError, UsageError
from solstice.host import clock, files
from solstice.host.places import Places
from solstice.store import migrate
from solstice.store.engine import connect, opened, shown, transaction
from solstice.store.group import answer

_database = options.settings("state_dir", "database_url")
# Nobody is to wait at a prompt for a supervisor that will not end.
_PATIENCE = 1.0
_PRUNE_PATIENCE = 3600.0


@click.group(short_help="the database: its tables, and how long it remembers")
def db() -> None:
    """Look at the tables of the database, bring them up to date, and forget what is old.

    `solstice serve` brings them up to date at its start.
    """


@db.command(short_help="bring the tables up to date")
@_database
def upgrade(**flags: Any) -> None:
    """Bring the tables up to date, or make them; an SQLite database must not be in use."""
    url = options.loaded(flags).database_url
    with _existing(url) as engine:
        before = _revision(engine)
    with opened(url, _PATIENCE) as engine:
        click.echo(f"{shown(engine)}: {_now(before)}")


@db.command(short_help="show the revision of the tables")
@_database
def current(**flags: Any) -> None:
    """Show which revision the tables have, and which is the newest."""
    with _existing(options.loaded(flags).database_url) as engine:
        found = _revision(engine)
        newest = "the newest" if found == migrate.HEAD else f"the newest is {migrate.HEAD}"
        click.echo(f"{shown(engine)}: {found or 'no tables'}, {newest}")


@db.command(short_help="see whether the tables are up to date")
@_database
def check(**flags: Any) -> None:
    """See whether the tables are up to date and as this Solstice expects them; exit code 1 if not."""
    with _existing(options.loaded(flags).database_url) as engine:
        found = _revision(engine)
        migrate.refuse_newer(found, shown(engine))
        if found != migrate.HEAD:
            raise SolsticeError(
                f"the database {shown(engine)} is not up to date",
                f"it has {f'the tables of revision {found}' if found else 'no tables'}, the newest is {migrate.HEAD}",
                "`solstice serve` upgrades it at its start, `solstice db upgrade` before that",
            )
        with transaction(engine) as connection:
            differences = migrate.differences(connection)
        if differences:
            raise SolsticeError(
                f"the tables of {shown(engine)} are not those of revision {found}",
                "; ".join(differences),
                "undo what was changed by hand, or restore a backup",
            )
        click.echo(f"{shown(engine)}: up to date, revision {found}")


@db.command(short_help="forget jobs that ended long ago, with their logs")
@click.option("--older-than", metavar="TIME", required=True, help="How long ago: such as 30d, 12h or 90min.")
@options.settings("state_dir", "run_dir", "database_url")
def prune(older_than: str, **flags: Any) -> None:
    """Forget the jobs of this host that ended longer ago than TIME, and remove their logs.

    The supervisor does it, if one runs.  Results that are not yet published are published all the same.
    """
    seconds = _seconds(older_than)
    settings = options.loaded(flags)
    places = Places(settings.state_dir, settings.run_dir)
    # whoever does not answer and is there all the same has the lock, and is named below
    with suppress(UsageError):
        done = client.ask(places.run, "prune", patience=_PRUNE_PATIENCE, older_than=seconds)
        click.echo(f"forgot {done['jobs']} jobs")
        return
    with places.locked(takes_run=False), opened(settings.database_url, _PATIENCE, places.owner()) as engine:
        count = _prune(engine, places, clock.wall() - seconds)
    click.echo(f"forgot {count} jobs")


def _prune(engine: Engine, places: Places, older_than: float) -> int:
    """How many jobs were forgotten.  Raises `SolsticeError` at the end if the logs of some could not be removed."""
    host = places.owner()
    after, count = 0, 0
    left: list[str] = []
    removed: list[str] = []
    while True:
        asked = {"op": "prune", "id": 0, "older_than": older_than, "after": after, "removed": removed, "host": host}
        (reply,) = answer(engine, [asked])
        if not reply["ok"]:
            raise SolsticeError("the database does not forget", reply["error"])
        page = reply["result"]["jobs"]
        count += len(removed)
        if not page:
            break
        removed = [job["id"] for job in page if _remove(places.jobs / job["id"], left)]
        # a row that is gone is gone from the disk, and its logs must be before it
        files.sync(places.jobs)
        after = page[-1]["seq"]
    if left:
        raise SolsticeError(
            f"{len(left)} jobs are kept, {count} forgotten", left[0], "remove their logs, and try again"
        )
    return count


def _remove(logs: Path, left: list[str]) -> bool:
    try:
        files.remove_tree(logs)
    except OSError as error:
        left.append(f"cannot remove {error.filename or logs}: {error.strerror}")
        return False
    return True


def _seconds(text: str) -> float:
    try:
        return parsers.age(text)
    except parsers.Bad as bad:
        raise UsageError("--older-than", bad.why, bad.remedy) from None


@contextmanager
def _existing(url: str) -> Iterator[Engine]:
    engine = connect(url)
    try:
        yield engine
    finally:
        engine.dispose()


def _revision(engine: Engine) -> str | None:
    """The revision of the tables; None if there are none.  A file that is not there is not made."""
    file = engine.url.database if engine.dialect.name == "sqlite" else None
    if file and not Path(file).exists():
        return None
    with transaction(engine) as connection:
        return migrate.current(connection)


def _now(before: str | None) -> str:
    if before == migrate.HEAD:
        return f"was up to date, revision {before}"
    return f"upgraded from revision {before} to {migrate.HEAD}" if before else f"made, revision {migrate.HEAD}"
