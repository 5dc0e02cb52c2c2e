"""What has come of a source, kept on disk until the image is published, with a record of what it is the beginning of.

    PART        the bytes as they came
    PART.json   of which URL, in which state (`Record`)

A record is written before the first of its bytes, and the bytes of another are removed before that: whatever kills the
process, the bytes belong to the record, or there is none.  A power failure does not break this either: file systems put
the size of a file that grows on disk after its bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from solstice.protocol.urls import mask_url


@dataclass(frozen=True, slots=True)
class Record:
    """A source in one state; `length` is None where the server does not say it.  The URL has no password."""

    url: str
    etag: str = ""
    modified: str = ""
    length: int | None = None

    @property
    def validator(self) -> str:
        """What If-Range can ask with; empty if there is nothing to tell this state from another by."""
        strong = self.etag.startswith('"')
        return self.etag if strong else self.modified


class Part:
    """The file of a part, opened by `open_part`."""

    def __init__(self, path: Path, descriptor: int, record: Record | None) -> None:
        self.descriptor = descriptor
        self.record = record
        self._path = path
        if record is None:
            self.clear()

    def close(self) -> None:
        """Keep what there is; of nothing, nothing stays."""
        if not self.size:
            drop(self._path)
        os.close(self.descriptor)

    @property
    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def clear(self) -> None:
        """Begin with nothing."""
        self.record = None
        _record_of(self._path).unlink(missing_ok=True)
        os.ftruncate(self.descriptor, 0)

    def begin(self, record: Record) -> None:
        """Begin with the first byte of this state of the source."""
        self.clear()
        staged = self._path.with_name(self._path.name + ".json.new")
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(record), file)
        staged.rename(_record_of(self._path))
        self.record = record

    def write(self, offset: int, data: bytes) -> int:
        """Put `data` at `offset`; where it ends."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self.descriptor, view, offset)
            view, offset = view[count:], offset + count
        return offset


def open_part(path: Path, url: str) -> Part:
    """The part at `path`, with what is there already of `url`.  Raises `OSError`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    record = _read(path)
    return Part(path, descriptor, record if record and record.url == mask_url(url) else None)


def drop(path: Path) -> None:
    """Remove a part, if there is one."""
    for leftover in (path, _record_of(path), path.with_name(path.name + ".json.new")):
        leftover.unlink(missing_ok=True)


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read(path: Path) -> Record | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        record = Record(**json.loads(_record_of(path).read_text()))
        texts = (record.url, record.etag, record.modified)
        if isinstance(record.length, int | None) and all(isinstance(text, str) for text in texts):
            return record
    return None
