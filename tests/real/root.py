"""Where a server's programs are: this host, or a root of another Debian.

A program in a root sees one folder of the host, at `/mnt`.  What is mounted for that stands in a mount namespace that
ends with the last process in it; the root itself is read-only, and any number of servers may run from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_SEEN = Path("/mnt")
# each command becomes the next, so that who starts this has the program itself as its child
_ENTER = """\
root=$1 folder=$2
shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$folder" "$root/mnt"
mount -t tmpfs tmpfs "$root/tmp"
exec chroot "$root" "$@"
"""


@dataclass(frozen=True, slots=True)
class Root:
    """Another path than `/` needs root to enter."""

    path: Path = Path("/")

    def seen(self, folder: Path) -> Path:
        """How programs in here call the one folder of the host that they see."""
        return folder if self.path == Path("/") else _SEEN

    def argv(self, folder: Path, *words: str) -> list[str]:
        """The command line that runs `words` in here, with `folder` in view."""
        if self.path == Path("/"):
            return list(words)
        enter = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", _ENTER, "sh"]
        return [*enter, str(self.path), str(folder), *words]


HOST = Root()
