"""The image map: what a label stands for, and what its machines get.  Read once at start by the composition root.

The map is the operator's file, the same for every back end.  It is checked whole: after `load` every alias leads to
an image and the default label to one too, so nobody downstream has to ask.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from solstice.config import positions
from solstice.config.section import Section
from solstice.errors import Cause, RequestError
from solstice.model import Compression, Image, Resources, SeedBus
from solstice.protocol.places import clip, nearest

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

_QUANTITY = re.compile(r"([1-9][0-9]{0,6})(MiB|GiB|TiB)")
_MIB = {"MiB": 1, "GiB": 1 << 10, "TiB": 1 << 20}
_MEMORY_MIB = (16, 16 << 20)
_DISK_MIB = (1 << 10, 1 << 30)
_SCHEMES = ("https", "http", "file")


@dataclass(frozen=True, slots=True)
class ImageMap:
    """Labels, images and sizes of this host."""

    default_label: str
    aliases: Mapping[str, str]
    sizes: Mapping[str, Resources]
    images: Mapping[str, Image]

    def resolve(self, label: str) -> Image | None:
        """The image that a label stands for (an empty one: the default label), or None for an unknown label."""
        name = label or self.default_label
        while name in self.aliases:  # ends: load() refuses loops
            name = self.aliases[name]
        return self.images.get(name)

    def by_urgency(self) -> list[Image]:
        """Every image, the default label's first."""
        default = self.resolve("")
        return sorted(self.images.values(), key=lambda image: image is not default)

    def labels(self) -> list[str]:
        """Every label that a request may ask for: images and aliases, sorted."""
        return sorted({*self.images, *self.aliases})

    def resources(self, request_size: str, image: Image) -> Resources:
        """What one machine gets: the preset a request names, else the image's own.

        A preset without a disk leaves the image's.  Raises `RequestError` (unschedulable) for an unknown size.
        """
        if not request_size:
            return image.resources
        preset = self.sizes.get(request_size)
        if preset is None:
            why = f"size: {clip(request_size)} is not a size of this host"
            raise RequestError(why, Cause.UNSCHEDULABLE, nearest(request_size, self.sizes))
        return replace(preset, disk_gib=preset.disk_gib or image.resources.disk_gib)


def load(path: Path) -> ImageMap:
    """Read and check an image map.  Raises `UsageError` if there is no such file, `ConfigError` if it is wrong."""
    top = Section(positions.read(path))
    top.only("default_label", "aliases", "sizes", "images")
    top.require("default_label", "images")
    sizes = _sizes(top)
    images = _images(top, sizes)
    aliases = _aliases(top, images)
    default = top.text("default_label", "ubuntu-22.04")
    if default not in images and default not in aliases:
        raise top.error(
            "default_label", f"{clip(default)} is no image and no alias", nearest(default, {*images, *aliases})
        )
    return ImageMap(default, aliases, sizes, images)


def _named(section: Section) -> list[str]:
    """The names that a section defines."""
    for name in section:
        if not LABEL.fullmatch(name):
            remedy = "use 1 to 63 of A-Z a-z 0-9 . _ -, a letter or digit first"
            raise section.error(name, "cannot be a name", remedy)
    return list(section)


def _sizes(top: Section) -> dict[str, Resources]:
    if "sizes" not in top:
        return {}
    sizes = top.section("sizes")
    return {name: _resources(sizes.section(name)) for name in _named(sizes)}


def _resources(section: Section) -> Resources:
    section.only("cpus", "memory", "disk")
    disk = _mebibytes(section, "disk", _DISK_MIB, "20GiB") // _MIB["GiB"] if "disk" in section else 0
    return Resources(section.integer("cpus", 1, 1024), _mebibytes(section, "memory", _MEMORY_MIB, "2GiB"), disk)


def _mebibytes(section: Section, key: str, bounds: tuple[int, int], example: str) -> int:
    text = section.text(key, example)
    match = _QUANTITY.fullmatch(text)
    amount = int(match[1]) * _MIB[match[2]] if match else 0
    low, high = bounds
    if not low <= amount <= high or (key == "disk" and amount % _MIB["GiB"]):
        units = "GiB or TiB" if key == "disk" else "MiB, GiB or TiB"
        raise section.error(
            key, f"{clip(text)} is not a possible amount", f"write a whole number of {units}, as {example}"
        )
    return amount


def _images(top: Section, sizes: Mapping[str, Resources]) -> dict[str, Image]:
    section = top.section("images")
    images: dict[str, Image] = {}
    for name in _named(section):
        image = _image(section.section(name), name, sizes)
        for other in images.values():
            if other.local_path == image.local_path:
                why = f"is the local_path of {other.name} too"
                raise section.section(name).error("local_path", why, "give every image a file of its own")
        images[name] = image
    if not images:
        raise top.error("images", "has no image", "add one; solstice ships an example image map")
    return images


def _image(section: Section, name: str, sizes: Mapping[str, Resources]) -> Image:
    section.only("source", "local_path", "decompress", "nocloud", "seed_bus", "resources", "size")
    return Image(
        name=name,
        source=_source(section),
        local_path=_beside(section, section.text("local_path", f"/var/lib/solstice/images/{name}.img")),
        decompress=section.choice("decompress", Compression.NONE),
        nocloud=section.boolean("nocloud", True),
        seed_bus=section.choice("seed_bus", SeedBus.VIRTIO),
        resources=_defaults(section, sizes),
    )


def _source(section: Section) -> str:
    """An URL as it is; a plain path made absolute."""
    text = section.text("source", "https://images.example/disk.qcow2")
    if "://" not in text:
        return str(_beside(section, text))
    remedy = f"write a path, or an URL with one of {', '.join(_SCHEMES)}"
    try:
        url = urlsplit(text)
        reachable = url.scheme == "file" or (bool(url.hostname) and url.port != 0)
    except ValueError:
        reachable = False
    if not reachable or url.scheme not in _SCHEMES or not url.path.strip("/") or " " in text:
        raise section.error("source", "is not an URL that an image can come from", remedy)
    return text


def _beside(section: Section, text: str) -> Path:
    """A path of the map, relative to the folder that the map is in."""
    return Path(os.path.normpath(section.document.path.absolute().parent / text))


def _defaults(section: Section, sizes: Mapping[str, Resources]) -> Resources:
    if "resources" in section and "size" in section:
        raise section.error("size", "stands beside resources", "keep one of the two")
    if "resources" in section:
        return _resources(section.section("resources"))
    if "size" not in section:
        return Resources()
    size = section.text("size", "medium")
    if size not in sizes:
        raise section.error("size", f"{clip(size)} is not defined under sizes", nearest(size, sizes))
    return sizes[size]


def _aliases(top: Section, images: Mapping[str, Image]) -> dict[str, str]:
    if "aliases" not in top:
        return {}
    section = top.section("aliases")
    aliases = {name: section.text(name, "ubuntu-22.04") for name in _named(section)}
    for name, target in aliases.items():
        if name in images:
            raise section.error(name, "is the name of an image too", "rename the alias or the image")
        if target not in images and target not in aliases:
            raise section.error(name, f"{clip(target)} is no image and no alias", nearest(target, {*images, *aliases}))
    for name in aliases:
        _refuse_loop(section, aliases, name)
    return aliases


def _refuse_loop(section: Section, aliases: Mapping[str, str], name: str) -> None:
    seen = [name]
    while (target := aliases.get(seen[-1])) is not None:
        if target in seen:
            raise section.error(name, f"goes in a circle: {' → '.join([*seen, target])}", "let it end at an image")
        seen.append(target)
