"""Settings and image map together: what a host runs by.  Read at start and at each reload, by the composition root.

The map's limits rank above the defaults and below environment and flags, which a running process cannot change; so
they are what a reload changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from solstice.config import imagemap
from solstice.config.imagemap import ImageMap
from solstice.config.settings import Settings, load


@dataclass(frozen=True, slots=True)
class Configuration:
    """`settings` has the image map's limits in it."""

    settings: Settings
    image_map: ImageMap


def read(flags: Mapping[str, str | None], environ: Mapping[str, str], *, root: bool | None = None) -> Configuration:
    """The configuration of this process; the parameters are those of `settings.load`.

    Raises `UsageError` for a flag, a variable or a map that cannot be read, `ConfigError` for what is wrong in the map.
    """
    image_map = imagemap.load(load(flags, environ, root=root).config)
    return Configuration(load(flags, environ, limits=image_map.limits, root=root), image_map)
