"""The runner's text, as the host puts it on the seed: read from the package, so that host and runner never differ."""

from __future__ import annotations

import functools
from importlib import resources


@functools.cache
def script() -> bytes:
    """`guest.sh`, whole; it begins with `#!/bin/sh`."""
    return resources.files("solstice.runner").joinpath("guest.sh").read_bytes()
