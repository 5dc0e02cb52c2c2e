"""Files and directories."""

from __future__ import annotations

import shutil
from pathlib import Path


def make_passable(directory: Path) -> None:
    """Make `directory`, and its parents, such that any user may pass through them but not look: mode 0711.

    By chmod, because the umask cuts what mkdir is told, and QEMU's user must come through.
    """
    if not directory.exists():
        make_passable(directory.parent)
        directory.mkdir(exist_ok=True)
        directory.chmod(0o711)


def remove_tree(directory: Path) -> None:
    """Remove `directory` and all in it; that it is gone, or goes while we look, is fine.

    A worker that lost its supervisor and the sweeper of the next one may both be at it; rmtree then finds
    entries missing that it has just listed.
    """
    while directory.exists():
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            continue
