"""Where the frames of a zstd stream begin and end, read from their headers on the way to the library (RFC 8878).

The library's reader does not say whether its input ended in the middle of a frame; and how much memory a frame wants is
to be known before the library has taken it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from solstice.errors import Cause, InfraError

_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A50
_RLE = 1


class Frames:
    """Passes on what `read` gives, and watches it.

    `whole` says whether the stream may end here.  Raises `InfraError` for a frame that wants more than `memory` bytes.
    """

    def __init__(self, read: Callable[[int], bytes], memory: int) -> None:
        self.whole = False
        self._source = read
        self._memory = memory
        self._walk = self._frames()
        self._wanted = next(self._walk)
        self._header = b""
        self._skip = 0
        self._between = True

    def read(self, count: int, /) -> bytes:
        data = self._source(count)
        if data:
            self._look(data)
        return data

    def _look(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
            else:
                step = min(self._wanted - len(self._header), len(data) - at)
                self._header += data[at : at + step]
            at += step
            # The next question may be for nothing: an optional field that is not there.
            while not self._skip and len(self._header) == self._wanted:
                header, self._header = self._header, b""
                self._wanted = self._walk.send(header)
        self.whole = self._between and not self._skip and not self._header

    def _frames(self) -> Generator[int, bytes, None]:
        """Yields how many bytes of header it wants to see next, and sets `_skip` for what lies before them."""
        while True:
            self._between = True
            magic = int.from_bytes((yield 4), "little")
            self._between = False
            if magic & ~0xF == _SKIPPABLE:
                self._skip = int.from_bytes((yield 4), "little")
            elif magic == _MAGIC:
                yield from self._frame()
            # whatever else it is, the library refuses it

    def _frame(self) -> Generator[int, bytes, None]:
        descriptor = (yield 1)[0]
        single = descriptor >> 5 & 1
        window = yield 1 - single
        yield (0, 1, 2, 4)[descriptor & 3]  # the dictionary's id
        content = yield (single, 2, 4, 8)[descriptor >> 6]
        self._check(_window(window[0]) if window else int.from_bytes(content, "little"))
        last = 0
        while not last:
            block = int.from_bytes((yield 3), "little")
            last = block & 1
            self._skip = 1 if block >> 1 & 3 == _RLE else block >> 3
        self._skip += 4 * (descriptor >> 2 & 1)  # the checksum

    def _check(self, window: int) -> None:
        if window > self._memory:
            raise too_large(f"{window >> 20} MiB", self._memory)


def _window(descriptor: int) -> int:
    base = 1 << (10 + (descriptor >> 3))
    return base + base // 8 * (descriptor & 7)


def too_large(wanted: str, memory: int) -> InfraError:
    """A stream whose decoder would take more memory than it may."""
    why = f"decompressing it takes {wanted} of memory, and {memory >> 20} MiB are allowed"
    return InfraError(Cause.IMAGE, why, "raise `decoder_memory` in the image map, or compress it with a smaller window")
