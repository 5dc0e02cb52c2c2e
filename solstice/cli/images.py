"""`solstice images`: the base images of this host and their versions.

Works on the files themselves, with and without a running supervisor: the lock of each image makes that safe, and after
a change a supervisor that runs is told to look again.  Progress goes to standard error: a bar on a terminal, a line
now and then elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from solstice.cli import client, image_words, options
from solstice.cli.image_words import Progress
from solstice.cli.words import moment
from solstice.config import configuration
from solstice.config.parsers import Bad, age, amount
from solstice.errors import InfraError, SolsticeError, UsageError
from solstice.host import clock
from solstice.host.places import Places
from solstice.images import content, prune
from solstice.images.obtain import Found, obtain, rollback
from solstice.images.versions import Shelf, Version
from solstice.model import Image
from solstice.protocol.places import nearest

FAILED = 1
_MIB = 1 << 20

_names = click.argument("names", metavar="[IMAGE]...", nargs=-1)
_places = options.settings("config", "state_dir", "run_dir")


@dataclass(frozen=True, slots=True)
class _Host:
    """What the commands work on: the images that were named (all, if none was), and where the rest of the host is."""

    images: list[Image]
    jobs: Path
    run_dir: Path

    def tell(self, *names: str) -> None:
        """Have a supervisor look again at these images, if one runs."""
        try:
            client.ask(self.run_dir, "images", look=list(names))
        except client.Refused as refused:
            click.echo(f"solstice: {refused}", err=True)
        except UsageError:
            pass  # nobody is there; the next one looks at its start


def _host(flags: dict[str, Any], names: tuple[str, ...]) -> _Host:
    """Raises `UsageError` if a name is not in the image map, or the map is wrong."""
    config = configuration.read(options.taken(flags), os.environ)
    known, settings = config.image_map.images, config.settings
    for name in names:
        if name not in known:
            raise UsageError(f"image {name:.80}", "it is not in the image map", nearest(name, known))
    wanted = [known[name] for name in dict.fromkeys(names)] if names else config.image_map.by_urgency()
    return _Host(wanted, Places(settings.state_dir, settings.run_dir).jobs, settings.run_dir)


def _each(images: list[Image], work: Callable[[Image], None]) -> None:
    """Do it for every image, also if it fails for some of them; then exit with 1."""
    failed = False
    for image in images:
        try:
            work(image)
        except InfraError as error:
            click.echo(f"solstice: {image.name}: {error.why} ({error.remedy})", err=True)
            failed = True
    if failed:
        sys.exit(FAILED)


@click.group(short_help="list, pull, refresh, verify, roll back and prune base images")
def images() -> None:
    """The base images of this host and their versions.  IMAGE is a name of the image map; without one: every image."""


@images.command("list", short_help="list the images with their versions")
@_names
@click.option("--json", "as_json", is_flag=True, help="For programs: the same as JSON.")
@_places
def _list(names: tuple[str, ...], as_json: bool, **flags: Any) -> None:
    """List every version that is there, the newest of each image first, and what it is: used, refused, older."""
    host = _host(flags, names)
    rows = [row for image in host.images for row in image_words.rows(image, host.jobs)]
    click.echo(json.dumps(rows, indent=2) if as_json else image_words.text(rows))


@images.command("pull", short_help="fetch what is not there yet")
@_names
@_places
def _pull(names: tuple[str, ...], **flags: Any) -> None:
    """Make each image ready: what is there is used as it is, what is not is fetched and checked."""
    host = _host(flags, names)

    def one(image: Image) -> None:
        with Progress(image.name) as progress:
            found = obtain(image, progress.watch)
        _say_found(image, found)
        host.tell(image.name)

    _each(host.images, one)


@images.command("refresh", short_help="fetch a newer version, if the source has one")
@_names
@click.option("--again", is_flag=True, help="Also a version that was rolled back or did not pass its boot test.")
@_places
def _refresh(names: tuple[str, ...], again: bool, **flags: Any) -> None:
    """Ask each source whether it has another version than the newest that is here, and fetch it if so."""
    host = _host(flags, names)

    def one(image: Image) -> None:
        before = _used(image)
        with Progress(image.name) as progress:
            found = obtain(image, progress.watch, refresh=True, again=again)
        is_new = found.candidate is not None or before != _used(image)
        _say_found(image, found, "" if is_new else "nothing new, ")
        host.tell(image.name)

    _each(host.images, one)


def _used(image: Image) -> str | None:
    version = Shelf(image).current()
    return version.name if version is not None else None


def _say_found(image: Image, found: Found, prefix: str = "") -> None:
    if found.ready is not None:
        click.echo(f"{image.name}: {prefix}ready, {found.ready.digest} at {found.ready.path}")
    if found.candidate is not None:
        version = found.candidate
        click.echo(f"{image.name}: {version.digest} is used once the supervisor has booted a machine from it")


@images.command("verify", short_help="read each version again, and name what is damaged")
@_names
@_places
def _verify(names: tuple[str, ...], **flags: Any) -> None:
    """Read every version from the disk and compare it with what was published.  Exit code 1 if one is damaged."""
    host, damaged = _host(flags, names), 0
    for image in host.images:
        shelf = Shelf(image)
        if shelf.is_operators():
            click.echo(f"{image.name}: {shelf.link} was put there by an operator, nothing is recorded of it")
        for version in shelf.versions():
            damaged += not _is_whole(shelf, version)
    if damaged:
        sys.exit(FAILED)


def _is_whole(shelf: Shelf, version: Version) -> bool:
    path, name = shelf.path(version), shelf.image.name
    try:
        with Progress(name) as progress:
            found = content.digest(path, progress.watch, from_disk=True)
    except OSError as error:
        click.echo(f"{name}: damaged: {path} cannot be read: {error.strerror}")
        return False
    if found == version.content:
        click.echo(f"{name}: ok: {path}")
        return True
    remedy = f"remove it and run `solstice images refresh {name}`"
    click.echo(f"{name}: damaged: {path} does not hold what was published on {moment(version.at)} ({remedy})")
    return False


@images.command("rollback", short_help="go back to the version before")
@click.argument("name", metavar="IMAGE")
@click.option("--because", default="an operator rolled it back", help="The reason, for `list`.")
@_places
def _rollback(name: str, because: str, **flags: Any) -> None:
    """Use the version before the current one of IMAGE.

    What it was rolled back from is refused from then on: a refresh does not bring it back (`refresh --again` does).
    """
    host = _host(flags, (name,))

    def one(image: Image) -> None:
        version = rollback(image, because)
        click.echo(f"{image.name}: {version.digest} is used again, published on {moment(version.at)}")
        host.tell(image.name)

    _each(host.images, one)


@images.command("prune", short_help="remove versions that nothing uses")
@_names
@click.option("--older-than", metavar="AGE", help="Those that were replaced so long ago, such as 30d.")
@click.option("--keep-free", metavar="SIZE", help="The oldest, until so much of the disk is free, such as 20GiB.")
@_places
def _prune(names: tuple[str, ...], older_than: str | None, keep_free: str | None, **flags: Any) -> None:
    """Remove versions that no machine stands on: by age, by room, or by both.  Never the one that is used."""
    if older_than is None and keep_free is None:
        raise UsageError("images prune", "it needs --older-than, --keep-free or both", "--older-than 30d")
    latest = clock.wall() - _parsed("--older-than", age, older_than) if older_than is not None else None
    free = _parsed("--keep-free", amount(1, 1 << 30, "20GiB"), keep_free) * _MIB if keep_free is not None else 0
    host = _host(flags, names)
    failed = False
    for spare in _oldest_first(host.images):
        is_old = latest is not None and spare.since <= latest
        if not is_old and shutil.disk_usage(spare.shelf.directory).free >= free:
            continue
        try:
            why = prune.remove(spare, host.jobs)
        except (SolsticeError, OSError) as error:
            why, failed = str(error), True
        click.echo(f"{spare.shelf.image.name}: {spare.path} {'removed' if why is None else f'stays: {why}'}")
    if failed:
        sys.exit(FAILED)


def _oldest_first(images: list[Image]) -> Iterator[prune.Spare]:
    yield from sorted(
        (spare for image in images for spare in prune.spares(Shelf(image))), key=lambda spare: spare.since
    )


def _parsed(flag: str, parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except Bad as bad:
        raise UsageError(flag, bad.why, bad.remedy) from None
