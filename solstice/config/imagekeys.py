"""One entry of the image map: where an image comes from, how it is checked and made ready, how it is kept up to date.

Called by imagemap, which knows the sizes and the other images.  What contradicts itself is refused here, at its line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from solstice.config.parsers import Bad, age, amount
from solstice.config.section import Section
from solstice.model import DiskFormat, Image, SeedBus
from solstice.protocol.places import clip

T = TypeVar("T")

KEYS = (
    "source",
    "local_path",
    "sha256",
    "sha512",
    "checksum_url",
    "decompress",
    "max_size",
    "decoder_memory",
    "refresh",
    "boot_test",
    "prepare",
    "nocloud",
    "seed_bus",
)
MAX_REFRESH = 366 * 86400.0

_MIB = 1 << 20
_SCHEMES = ("https", "http", "file")
_max_size = amount(1, 64 << 20, "256GiB")
_decoder_memory = amount(1, 4 << 10, "128MiB")


def image(section: Section, name: str) -> Image:
    """The entry `name` without its resources.  Raises `ConfigError`."""
    _refuse_contradictions(section)
    usual = Image(name, "", Path())
    return Image(
        name=name,
        source=_source(section, "source", "https://images.example/disk.qcow2"),
        local_path=_beside(section, section.text("local_path", f"/var/lib/solstice/images/{name}.img")),
        decompress=section.choice("decompress", usual.decompress),
        nocloud=section.boolean("nocloud", usual.nocloud),
        seed_bus=section.choice("seed_bus", SeedBus.VIRTIO),
        sha256=_parsed(section, "sha256", _digest(64), usual.sha256),
        sha512=_parsed(section, "sha512", _digest(128), usual.sha512),
        checksum_url=_source(section, "checksum_url", "https://images.example/SHA256SUMS", needed=False),
        max_size=_parsed(section, "max_size", _max_size, usual.max_size // _MIB) * _MIB,
        decoder_memory=_parsed(section, "decoder_memory", _decoder_memory, usual.decoder_memory // _MIB) * _MIB,
        refresh=_parsed(section, "refresh", _refresh, usual.refresh),
        boot_test=section.boolean("boot_test", usual.boot_test),
        prepare=section.choice("prepare", DiskFormat.RAW) if "prepare" in section else None,
    )


def _refuse_contradictions(section: Section) -> None:
    fixed = next((key for key in ("sha256", "sha512") if key in section), None)
    if fixed is None:
        return
    if "checksum_url" in section:
        why = f"stands beside {fixed}, which says already what the image must be"
        raise section.error("checksum_url", why, "keep one of the two")
    if "refresh" in section:
        why = f"can never find anything: {fixed} admits one version of the image alone"
        raise section.error("refresh", why, f"remove it, or give checksum_url in the place of {fixed}")


def _parsed(section: Section, key: str, parse: Callable[[str], T], default: T) -> T:
    return section.parsed(key, section.scalar(key, ""), parse) if key in section else default


def _digest(digits: int) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(rf"[0-9A-Fa-f]{{{digits}}}", text):
            raise Bad(f"{clip(text)} is not {digits} hexadecimal digits", f"give what sha{digits * 4}sum prints")
        return text.lower()

    return parse


def _refresh(text: str) -> float:
    seconds = age(text)
    if not 60 <= seconds <= MAX_REFRESH:
        raise Bad(f"{clip(text)} is not from 1min to 366d", "give a time, such as 7d, or leave it out for never")
    return seconds


def _source(section: Section, key: str, example: str, *, needed: bool = True) -> str:
    """An URL as it is; a plain path made absolute."""
    if not needed and key not in section:
        return ""
    text = section.text(key, example)
    if "://" not in text:
        return str(_beside(section, text))
    remedy = f"write a path, or an URL with one of {', '.join(_SCHEMES)}"
    try:
        url = urlsplit(text)
        reachable = url.scheme == "file" or (bool(url.hostname) and url.port != 0)
    except ValueError:
        reachable = False
    if not reachable or url.scheme not in _SCHEMES or not url.path.strip("/") or " " in text:
        raise section.error(key, "is not an URL that an image can come from", remedy)
    return text


def _beside(section: Section, text: str) -> Path:
    """A path of the map, relative to the folder that the map is in."""
    return Path(os.path.normpath(section.document.path.absolute().parent / text))
