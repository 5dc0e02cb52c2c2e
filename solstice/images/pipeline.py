"""From a source to the bytes of a disk: fetched, hashed, decompressed and written at the same time, in bounded memory.

    source ─ download ─► PART ─┬► digest
                               └► decompress ─► sparse ─► output

What stands at the arrows is a thread each; the caller's own watches over them.  `obtain` calls it, holds the image's
lock and owns the output; publishing is not done here.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from solstice.errors import Cause, InfraError
from solstice.images import checksum, decompress, fetch, part
from solstice.images.download import Changed, Download, Unchanged
from solstice.images.fetch import CONNECT_TIMEOUT, READ_TIMEOUT
from solstice.images.intake import Cursor, Ended, Intake, Relay, Spoiled
from solstice.images.sparse import Sparse
from solstice.model import Compression, Image

# The bytes that have come, and how many there will be (None: not known).  Whatever it raises ends the pull.
Watch = Callable[[int, int | None], None]

TICK = 0.1  # between two calls of the watch
# A transfer that brings less than `fetch.READ_SIZE` in this time ends: the connection's own timeouts see no trickle.
STALL = CONNECT_TIMEOUT + READ_TIMEOUT

_ROUNDS = 3
_LINGER = 2.0
_HASHED = 1 << 20

drop = part.drop


@dataclass(frozen=True, slots=True)
class Origin:
    """What a source was when it was read: enough to ask later whether it has changed.

    `digest` is `sha256:HEX` of the bytes as they came, compressed: what an operator compares with SHA256SUMS; `size`
    their number.  `modified` is Last-Modified as the server wrote it, for a file its mtime in ns and its size.
    """

    digest: str
    size: int
    etag: str = ""
    modified: str = ""


def pull(image: Image, part: Path, output: int, watch: Watch, known: Origin | None = None) -> Origin | None:
    """Fill `output`, the descriptor of an empty file, with the disk that `image.source` has.

    None if the source still is what `known` says; then `output` is untouched.  `part` is where the compressed bytes
    stay until `drop(part)`: a later call reads them from disk again and fetches only the rest.

    Raises `InfraError` (infra.image, infra.disk_full), `OSError` of `output`, and what `watch` raises.
    """
    try:
        path = fetch.local(image.source)
        if path is not None:
            return _read(image, path, output, watch, known)
        return _fetch(image, part, output, watch, known)
    except Spoiled:
        drop(part)
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        drop(part)
        raise InfraError(Cause.DISK_FULL, f"{image.local_path.parent}: {error.strerror}") from None


def _read(image: Image, path: Path, output: int, watch: Watch, known: Origin | None) -> Origin | None:
    """A file needs no part: it is one."""
    with contextlib.ExitStack() as stack:
        descriptor = fetch.open_local(path)
        stack.callback(os.close, descriptor)
        state = _state(descriptor)
        if known and known.modified == state:
            return None
        intake = Intake(descriptor)
        intake.total = intake.size = os.fstat(descriptor).st_size
        intake.finish()
        digest = _run(image, intake, output, watch, None)
        if _state(descriptor) != state:
            raise fetch.failure(str(path), "it was changed while it was read", "nothing: it is tried again")
        return Origin(digest, intake.size, modified=state)


def _state(descriptor: int) -> str:
    stat = os.fstat(descriptor)
    return f"{stat.st_mtime_ns} {stat.st_size}"


def _fetch(image: Image, path: Path, output: int, watch: Watch, known: Origin | None) -> Origin | None:
    conditions = {"If-None-Match": known.etag} if known and known.etag else {}
    if known and known.modified:
        conditions["If-Modified-Since"] = known.modified
    with contextlib.ExitStack() as stack:
        kept = part.open_part(path, image.source)
        stack.callback(kept.close)
        for _ in range(_ROUNDS):
            intake = Intake(kept.descriptor)
            download = Download(image.source, kept, intake, conditions, image.max_size)
            try:
                digest = _run(image, intake, output, watch, download)
            except Changed:
                os.ftruncate(output, 0)
                continue
            except Unchanged:
                return None
            etag, modified = (kept.record.etag, kept.record.modified) if kept.record else ("", "")
            return Origin(digest, intake.size, etag, modified)
    why = "it changes while it is fetched, or its server cannot go on where a connection broke"
    raise fetch.failure(image.source, why, "nothing: it is tried again; or use another mirror as `source`")


def _run(image: Image, intake: Intake, output: int, watch: Watch, download: Download | None) -> str:
    """One round: the digest, with the whole disk written.  Raises what the first of its threads to fail has raised."""
    found: list[str] = []
    relay = Relay(intake)
    tasks = [
        lambda: _write(image, intake, relay, output),
        lambda: _unpack(image, intake, relay),
        lambda: found.append(_digest(image, intake)),
    ]
    if download:
        tasks.append(download.run)
    with _threads(intake, tasks, download):
        while not intake.over.wait(TICK):
            watch(intake.size, intake.total)
            if monotonic() - intake.moved > STALL:
                remedy = "nothing: it is tried again, and goes on from there"
                intake.fail(fetch.failure(image.source, f"too little came for {STALL:g} s", remedy))
    if intake.failure:
        raise intake.failure
    watch(intake.size, intake.total)
    return found[0]


@contextlib.contextmanager
def _threads(intake: Intake, tasks: list[Callable[[], None]], download: Download | None) -> Iterator[None]:
    left = len(tasks)
    lock = threading.Lock()

    def work(task: Callable[[], None]) -> None:
        nonlocal left
        try:
            task()
        except Ended:
            return
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            intake.fail(error)
            return
        with lock:
            left -= 1
            if not left:
                intake.over.set()

    threads = [threading.Thread(target=work, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        intake.fail(Ended())
        if download:
            download.abort()
        # The output is the caller's, who will close it.  The others may hang in the network, and touch nothing after.
        threads[0].join()
        for thread in threads:
            thread.join(_LINGER)


def _digest(image: Image, intake: Intake) -> str:
    cursor = Cursor(intake)
    cursor.peek(1)  # what does not come needs no checksum file
    wanted = checksum.wanted(image)
    hashes = {algorithm: hashlib.new(algorithm) for algorithm in {"sha256", *wanted}}
    while data := cursor.read(_HASHED):
        for each in hashes.values():
            each.update(data)
    for algorithm, expected in wanted.items():
        checksum.compare(image, algorithm, expected, hashes[algorithm].hexdigest())
    return f"sha256:{hashes['sha256'].hexdigest()}"


def _unpack(image: Image, intake: Intake, relay: Relay) -> None:
    cursor = Cursor(intake)
    compression = image.decompress
    if compression is Compression.AUTO:
        compression = decompress.sniff(cursor.peek(decompress.HEAD))
    for piece in decompress.pieces(cursor, compression, image.decoder_memory):
        relay.put(piece)
    relay.put(b"")


def _write(image: Image, intake: Intake, relay: Relay, output: int) -> None:
    disk = Sparse(output)
    touched = 0
    while piece := relay.get():
        touched = intake.touch_at(touched, disk.size)
        if disk.size + len(piece) > image.max_size:
            why = f"the image is larger than {image.max_size} bytes when it is decompressed"
            raise Spoiled(why, "check `source`, or raise `max_size` in the image map")
        disk.write(piece)
    disk.finish()
