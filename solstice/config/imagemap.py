"""The image map: what a label stands for, what its machines get, the limits of this host.  Called by configuration.

The map is the operator's file, the same for every back end.  It is checked whole: after `load` every alias leads to
an image and the default label to one too, so nobody downstream has to ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from solstice.config import imagekeys, positions
from solstice.config.parsers import LABEL, MAX_PER_LABEL, UNITS, amount
from solstice.config.section import Section
from solstice.config.settings import SETTINGS, Setting
from solstice.errors import Cause, RequestError
from solstice.model import Image, Resources
from solstice.protocol.places import clip, nearest

_memory = amount(16, 16 << 20, "2GiB")
_disk = amount(1 << 10, 1 << 30, "20GiB", unit="GiB")
_LIMITS = {setting.name: setting for setting in SETTINGS if setting.limit}


@dataclass(frozen=True, slots=True)
class ImageMap:
    """Labels, images and sizes of this host; `limits` has checked values by `Setting.name`."""

    default_label: str
    aliases: Mapping[str, str]
    sizes: Mapping[str, Resources]
    images: Mapping[str, Image]
    limits: Mapping[str, Any] = field(default_factory=dict)

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
    top.only("default_label", "aliases", "sizes", "images", "limits")
    top.require("default_label", "images")
    sizes = _sizes(top)
    images = _images(top, sizes)
    aliases = _aliases(top, images)
    default = top.text("default_label", "ubuntu-22.04")
    if default not in images and default not in aliases:
        raise top.error(
            "default_label", f"{clip(default)} is no image and no alias", nearest(default, {*images, *aliases})
        )
    return ImageMap(default, aliases, sizes, images, _limits(top))


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
    disk = section.parsed("disk", section.text("disk", "20GiB"), _disk) // UNITS["GiB"] if "disk" in section else 0
    memory = section.parsed("memory", section.text("memory", "2GiB"), _memory)
    return Resources(section.integer("cpus", 1, 1024), memory, disk)


def _limits(top: Section) -> dict[str, Any]:
    if "limits" not in top:
        return {}
    section = top.section("limits")
    section.only(*_LIMITS)
    return {name: _limit(section, _LIMITS[name]) for name in section}


def _limit(section: Section, setting: Setting) -> Any:
    """One limit, read as its setting is; but the capacity map is a mapping here, as a person would write one."""
    if setting.name == "capacity_map":
        pairs = section.section(setting.name)
        return {label: pairs.integer(label, 1, MAX_PER_LABEL) for label in _named(pairs)}
    return section.parsed(setting.name, section.scalar(setting.name, setting.default), setting.parse)


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
    section.only(*imagekeys.KEYS, "resources", "size")
    return replace(imagekeys.image(section, name), resources=_defaults(section, sizes))


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
