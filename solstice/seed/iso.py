"""A seed as an ISO 9660 image with the volume label `cidata`, by which cloud-init's NoCloud source finds it.

The worker writes it into the attempt's throw-away directory and owns it there: nothing here deletes a seed.  The real
names stand in Rock Ridge (Linux, illumos) and in Joliet; plain ISO names are only for readers that know neither.

The same content gives the same bytes, except for the time stamps: pycdlib takes those from the clock.
"""

from __future__ import annotations

import errno
import io
from pathlib import Path

import pycdlib

from solstice.errors import Cause, InfraError
from solstice.seed.documents import SeedContent

LABEL = "cidata"

_FULL = (errno.ENOSPC, errno.EDQUOT)


def write(content: SeedContent, path: Path) -> None:
    """Write `content` to `path`, which appears whole or not at all; a seed that was there is replaced.

    Not fsynced: a host that goes down takes the VM with it, and the next attempt has a seed of its own.
    Raises `InfraError` (infra.disk_full, infra.hypervisor) if the file system refuses.
    """
    stage = path.with_name(f".{path.name}.stage")
    try:
        stage.write_bytes(image(content))
        stage.replace(path)
    except OSError as error:
        stage.unlink(missing_ok=True)
        cause = Cause.DISK_FULL if error.errno in _FULL else Cause.HYPERVISOR
        raise InfraError(cause, f"cannot write the seed {path}: {error.strerror}") from None


def image(content: SeedContent) -> bytes:
    """`content` as an ISO image."""
    file = io.BytesIO()
    iso = pycdlib.PyCdlib()
    # Level 3 allows the 30 characters that the longest NoCloud names need.
    iso.new(interchange_level=3, vol_ident=LABEL, joliet=3, rock_ridge="1.09")
    try:
        for name, data in sorted(content.files.items()):
            iso.add_fp(io.BytesIO(data), len(data), f"/{_plain(name)}", rr_name=name, joliet_path=f"/{name}")
        iso.write_fp(file)
    finally:
        iso.close()
    return file.getvalue()


def _plain(name: str) -> str:
    return f"{name.upper().replace('-', '_')}.;1"
