"""The digests that an image must have: from the map, or from a file such as SHA256SUMS beside the image.

Understood are the lines of GNU's sha256sum and sha512sum, and those of BSD's; other lines (signatures, comments) are
passed over.  A file with one digest and no name, as `image.img.sha256` often is, speaks of the image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from solstice.images import fetch
from solstice.images.intake import Spoiled
from solstice.model import Image
from solstice.protocol.urls import mask_url

MAX_FILE = 1 << 20

_HEX = r"([0-9A-Fa-f]{64}|[0-9A-Fa-f]{128})"
_GNU = re.compile(rf"\\?{_HEX} [ *](.+)")
_BSD = re.compile(rf"SHA(?:256|512) ?\((.+)\) ?= ?{_HEX}")
_BARE = re.compile(_HEX)
_ALGORITHMS = {64: "sha256", 128: "sha512"}


def wanted(image: Image) -> dict[str, str]:
    """The digests of the bytes at `image.source`, by algorithm, in lower case; none if nothing is asked for.

    Raises `InfraError` if the file at `checksum_url` cannot be had or does not speak of the image.
    """
    digests = {"sha256": image.sha256.lower(), "sha512": image.sha512.lower()}
    if image.checksum_url:
        name = _name(image.source)
        digest = find(fetch.small(image.checksum_url, MAX_FILE).decode(errors="replace"), name)
        if not digest:
            remedy = f"correct `checksum_url`, or put the digest of {name} into the image map as `sha256`"
            raise fetch.failure(image.checksum_url, f"it has no SHA-256 or SHA-512 digest of {name}", remedy)
        algorithm = _ALGORITHMS[len(digest)]
        digests[algorithm] = digests[algorithm] or digest
    return {algorithm: digest for algorithm, digest in digests.items() if digest}


def find(text: str, name: str) -> str:
    """The digest of the file `name` in the text of a checksum file, in lower case; empty if it has none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) == 1 and _BARE.fullmatch(lines[0]):
        return lines[0].lower()
    return next((digest.lower() for named, digest in _entries(lines) if PurePosixPath(named).name == name), "")


def compare(image: Image, algorithm: str, expected: str, found: str) -> None:
    """Raises `Spoiled` if the digests differ."""
    if expected != found:
        why = f"{mask_url(image.source)}: its {algorithm} is {found}, and {expected} is expected"
        raise Spoiled(why, "compare the image map with what the image's publisher says; do not use this file")


def _entries(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        if gnu := _GNU.fullmatch(line):
            yield gnu[2], gnu[1]
        elif bsd := _BSD.fullmatch(line):
            yield bsd[1], bsd[2]


def _name(source: str) -> str:
    path = unquote(urlsplit(source).path) if "://" in source else source
    return PurePosixPath(path).name
