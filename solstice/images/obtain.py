"""How one image comes to its place: what is there is used as it is, what is not is downloaded, checked, published.

The child calls it, one image at a time.  It leaves either the whole checked image or nothing; killed, it leaves a stage
file that the next call takes over.  Retrying is the child's.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

from solstice.errors import Cause, InfraError
from solstice.images import publish
from solstice.images.decompress import blocks
from solstice.images.fetch import Source, open_source
from solstice.images.header import ImageFacts
from solstice.images.inspect import inspect
from solstice.model import Image

# Called before each piece of a download with the bytes that have come and the bytes there will be (None: not known).
# Whatever it raises ends the download and cleans up after it.
Watch = Callable[[int, int | None], None]

_FULL = (errno.ENOSPC, errno.EDQUOT)


def obtain(image: Image, watch: Watch) -> ImageFacts:
    """The facts of the image, which stands at its `local_path` afterwards.

    Raises `InfraError` (infra.image, infra.disk_full) and what `watch` raises.
    """
    try:
        # A dangling symbolic link counts as there: it is the operator's too.
        if os.path.lexists(image.local_path):
            publish.drop_leftover(image.local_path)
        else:
            _download(image, watch)
        return inspect(image.local_path)
    except OSError as error:
        cause = Cause.DISK_FULL if error.errno in _FULL else Cause.IMAGE
        raise InfraError(cause, f"{error.filename or image.local_path}: {error.strerror}") from None


def _download(image: Image, watch: Watch) -> None:
    with publish.stage(image.local_path) as staged:
        # Asked again under the lock: another process may have published it since.
        if os.path.lexists(image.local_path):
            return
        with open_source(image.source) as source:
            for block in blocks(_watched(source, watch), image.decompress):
                staged.write(block)
        staged.finish()
        # Before it gets its name: a bad file in place would pass for the operator's, and stay.
        inspect(staged.path)
        staged.publish()


def _watched(source: Source, watch: Watch) -> Iterator[bytes]:
    count = 0
    watch(count, source.size)
    for chunk in source.chunks:
        count += len(chunk)
        yield chunk
        watch(count, source.size)
