"""What stands in a NoCloud seed: pure, from an identity and the runner's bytes to named files.

The worker calls it while it prepares an attempt, and hands the content to a container (`iso`).  No I/O, no cleanup.

`user-data` is the runner itself: cloud-init takes user data that begins with `#!` as a script and runs it once per
instance-id, so every attempt has an id of its own.  `runner` is the same again, for images without cloud-init whose
boot script looks for it by that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from solstice.errors import InternalError
from solstice.model import AttemptId

_INTERPRETER = b"#!/bin/sh\n"


@dataclass(frozen=True, slots=True)
class SeedContent:
    """File names and their bytes, the same for every container."""

    files: Mapping[str, bytes]


def nocloud(id: AttemptId, runner: bytes) -> SeedContent:
    """The seed of one attempt.  Raises `InternalError` if `runner` is nothing that cloud-init would execute."""
    if not runner.startswith(_INTERPRETER):
        begin = runner[: len(_INTERPRETER)]
        raise InternalError("the runner is not a shell script", f"it begins with {begin!r}, not with {_INTERPRETER!r}")
    meta_data = yaml.safe_dump({"instance-id": id.name, "local-hostname": id.hostname}, sort_keys=False)
    return SeedContent({"meta-data": meta_data.encode(), "user-data": runner, "runner": runner})
