"""How `solstice images` speaks: the rows of its list, and how far a pull is.  Knows files and no supervisor."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from solstice.cli.table import table
from solstice.cli.words import moment, size
from solstice.errors import SolsticeError
from solstice.images import usage
from solstice.images.inspect import inspect
from solstice.images.versions import Shelf, Version
from solstice.model import Image

# A line for each so many percent, where there is no terminal.
STEP = 10
_MIB = 1 << 20


def rows(image: Image, jobs: Path) -> Iterator[dict[str, Any]]:
    """What `list` shows of an image: a row for each version; one without a version if there is none."""
    shelf = Shelf(image)
    if shelf.is_operators():
        yield _operators(image)
    elif shelf.current() is None:
        yield _row(image, "missing", image.local_path)
    backing = usage.backing_files(jobs)
    for version in shelf.versions():
        yield _version(shelf, version, backing)


def text(found: Iterable[dict[str, Any]]) -> str:
    """The rows for people."""
    head = ("IMAGE", "VERSION", "STATE", "FORMAT", "DISK", "ON DISK", "IN USE", "PUBLISHED")
    return table(head, [_cells(row) for row in found])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["image"],
        (row["digest"] or "").partition(":")[2][:12],
        f"refused: {row['refused']}" if row["refused"] else row["state"],
        row["format"] or "",
        size(row["virtual_size"] // _MIB) if row["virtual_size"] else "",
        size(row["allocated"] // _MIB) if row["allocated"] is not None else "",
        {True: "yes", False: "no", None: ""}[row["in_use"]],
        moment(row["published_at"]) if row["published_at"] else "",
    )


def _row(image: Image, state: str, path: Path, **known: Any) -> dict[str, Any]:
    unknown = dict.fromkeys(
        ("digest", "source", "format", "virtual_size", "allocated", "in_use", "published_at", "checked_at", "refused")
    )
    return {"image": image.name, "state": state, "path": str(path), **unknown, **known}


def _version(shelf: Shelf, version: Version, backing: set[Path]) -> dict[str, Any]:
    path = shelf.path(version)
    with usage.unused(path) as is_unused:
        in_use = not is_unused or path.resolve() in backing
    return _row(
        shelf.image,
        _state(shelf, version),
        path,
        digest=version.digest,
        source=version.source,
        format=version.format.value,
        virtual_size=version.virtual_size,
        allocated=path.stat().st_blocks * 512,
        in_use=in_use,
        published_at=version.at,
        checked_at=version.checked,
        refused=version.refused or None,
    )


def _state(shelf: Shelf, version: Version) -> str:
    if version == shelf.current():
        return "current"
    if version.refused:
        return "refused"
    return "to be tested" if version == shelf.wanted() else "older"


def _operators(image: Image) -> dict[str, Any]:
    try:
        facts = inspect(image.local_path)
    except (OSError, SolsticeError) as error:
        return _row(image, f"an operator's file, which cannot be used: {error}", image.local_path)
    known = {"format": facts.format.value, "virtual_size": facts.virtual_size}
    return _row(image, "an operator's file", image.local_path, **known)


class Progress:
    """How far the pull of one image is, on standard error."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stack = ExitStack()
        self._bar: Any = None
        self._shown = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def watch(self, count: int, total: int | None) -> None:
        """`count` bytes have come of `total`; None if nobody knows how many there will be."""
        if sys.stderr.isatty() and total:
            self._draw(count, total)
        elif total and (percent := count * 100 // total) >= self._shown + STEP:
            self._shown = percent - percent % STEP
            click.echo(f"{self._name}: {self._shown} %", err=True)

    def _draw(self, count: int, total: int) -> None:
        if self._bar is None:
            bar: Any = click.progressbar(length=total, label=self._name, file=sys.stderr, show_pos=False)
            self._bar = self._stack.enter_context(bar)
        self._bar.update(max(0, min(count, total) - self._bar.pos))
