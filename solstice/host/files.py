"""Files and directories."""

from __future__ import annotations

import shutil
from pathlib import Path


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
