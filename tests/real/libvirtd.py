"""The libvirtd that tests talk to: the host's own if it answers, else one that is started here and ended wholly.

`python -m tests.real.libvirtd` runs one in the foreground until Ctrl-C, so that many test runs can share it.

libvirt compiles its paths in, so a second libvirtd cannot run beside a first; "private" means configuration and log.
The host needs neither systemd nor D-Bus.  Two things that cost hours are done here on purpose:

- Without polkit every unprivileged user is refused, hence `auth_unix_rw = "none"` and the group on the socket.
- libvirtd probes QEMU again at every domain start, for 90 s, where root can open /dev/kvm and its QEMU user cannot, and
  where PID 1 reaps orphans slowly.  Hence `tini -s` as the reaper, and /dev/kvm opened to all while the server runs.

A test may kill the one that was started here.  Its guests go on, and are still reaped: the reaper stays, and a loop
below it starts the next libvirtd, as a service manager would, but not while the file `down` is there.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.real.waiting import until

URI = "qemu:///system"
QEMU_USER = "libvirt-qemu"
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_VIRSH_SECONDS = 30.0
_KVM = Path("/dev/kvm")
_CONFIGURATION = """\
unix_sock_group = "libvirt"
unix_sock_rw_perms = "0770"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:stderr"
"""
_LOOP = """\
trap 'kill $pid; wait $pid; exit 0' TERM
while :; do
    while [ -e down ]; do sleep 0.1; done
    libvirtd -f libvirtd.conf -p libvirtd.pid &
    pid=$!
    wait $pid
done
"""


class LeftBehind(AssertionError):
    """Tests left domains on a libvirtd that was theirs alone."""


def virsh(*words: str) -> subprocess.CompletedProcess[str]:
    """Run virsh on the tests' libvirtd and return its ending, whatever it is; at most 30 s."""
    argv = ["virsh", "--quiet", "--connect", URI, *words]
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_VIRSH_SECONDS, check=False
    )


def answers() -> bool:
    """True if a libvirtd takes connections at `URI`."""
    try:
        return virsh("uri").returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _names(*words: str) -> list[str]:
    return virsh(*words, "--name").stdout.split()


class Libvirtd:
    """Start with `start`, end with `stop`; `uri` is what clients connect to.  Not started if the host has one.

    `kill` and `revive` are for tests, and only if it is `ours`.
    """

    uri = URI

    def __init__(self) -> None:
        self._cleanup = ExitStack()
        self._folder = Path()
        self.ours = False

    def start(self) -> None:
        """Return when a client was served.  Raises `NotReady` with the server's log."""
        if answers():
            return
        with ExitStack() as stack:
            self._folder = Path(tempfile.mkdtemp(prefix="solstice-libvirtd-"))
            stack.callback(shutil.rmtree, self._folder)
            _open_kvm_to_qemu(stack)
            (self._folder / "libvirtd.conf").write_text(_CONFIGURATION)
            # libvirtd asks virtlogd, which it cannot start itself as root, for the log of every QEMU
            (self._folder / "virtlogd.conf").touch()
            self._spawn(stack, ["virtlogd", "-f", "virtlogd.conf", "-p", "virtlogd.pid"])
            self._spawn(stack, ["sh", "-c", _LOOP])
            self._wait()
            autostarted = _names("net-list", "--autostart", "--all")
            stack.callback(_end_networks, autostarted)
            self.ours = True
            self._cleanup = stack.pop_all()

    def stop(self) -> None:
        """End what `start` began, networks and daemons.  Raises `LeftBehind` if domains had to be removed."""
        if not self.ours:
            return
        self.ours = False
        with self._cleanup:
            domains = _remove_domains()
        if domains:
            raise LeftBehind(f"domains were left, and are removed now: {', '.join(domains)}")

    def kill(self) -> None:
        """SIGKILL; what runs on it goes on."""
        assert self.ours, "the host's own libvirtd is not to be killed"
        (self._folder / "down").touch()
        os.kill(int((self._folder / "libvirtd.pid").read_text()), signal.SIGKILL)
        until(lambda: not answers(), seconds=_STOP_SECONDS, what="libvirtd's end", evidence=str)

    def revive(self) -> None:
        """Return when it answers again."""
        (self._folder / "down").unlink()
        self._wait()

    def _wait(self) -> None:
        log = self._folder / "libvirtd.log"
        until(answers, seconds=_START_SECONDS, what="libvirtd", evidence=log.read_text)

    def _spawn(self, stack: ExitStack, argv: list[str]) -> None:
        # -p: should this process be killed, the daemon ends as well
        reaper = ["tini", "-s", "-p", "SIGTERM", "--", *argv]
        with (self._folder / "libvirtd.log").open("ab") as sink:
            process = subprocess.Popen(
                reaper,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=self._folder,
                start_new_session=True,
            )
        stack.callback(_end, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _remove_domains() -> list[str]:
    domains = _names("list", "--all")
    for name in domains:
        virsh("destroy", name)
        virsh("undefine", name)
    return domains


def _end_networks(autostarted: list[str]) -> None:
    """Destroy every network, which ends its dnsmasq, and take back the autostart flags that tests had set."""
    for name in _names("net-list"):
        virsh("net-destroy", name)
    for name in set(_names("net-list", "--autostart", "--all")) - set(autostarted):
        virsh("net-autostart", name, "--disable")


def _open_kvm_to_qemu(stack: ExitStack) -> None:
    """Let everybody open /dev/kvm until the stack unwinds, if QEMU's user could not."""
    try:
        before = _KVM.stat()
        user = pwd.getpwnam(QEMU_USER)
    except (FileNotFoundError, KeyError):
        return
    by_group = before.st_gid in os.getgrouplist(QEMU_USER, user.pw_gid) and before.st_mode & stat.S_IWGRP
    if by_group or before.st_mode & stat.S_IWOTH:
        return
    stack.callback(_KVM.chmod, stat.S_IMODE(before.st_mode))
    _KVM.chmod(0o666)


def main() -> None:
    """Run until SIGINT or SIGTERM."""
    stop = (signal.SIGINT, signal.SIGTERM)
    server = Libvirtd()
    server.start()
    # blocked only now: the daemons would inherit the mask, and never hear the signal that ends them
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    print(f"libvirtd answers at {URI}" if server.ours else "the host's own libvirtd answers; nothing to do", flush=True)
    if server.ours:
        signal.sigwait(stop)
        server.stop()


if __name__ == "__main__":
    main()
