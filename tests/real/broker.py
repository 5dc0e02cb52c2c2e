"""A RabbitMQ server of the tests' own: own node name, ports, data and port mapper; nothing of it outlives `close`.

Debian's scripts in /usr/sbin change to the user rabbitmq and use the host's folders; those they call do neither, so
they are used directly, as whoever runs the tests, from this host or from a root with another version.  epmd, which a
node otherwise starts as a daemon that stays for ever, is started here first, as a child.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import quote

from tests.real.certificates import Authority
from tests.real.leftovers import live
from tests.real.root import HOST, Root
from tests.real.waiting import until

_PROGRAMS = "/usr/lib/rabbitmq/bin"
_START_SECONDS = 90.0
_STOP_SECONDS = 30.0
_CONTROL_SECONDS = 60.0
_CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{port}
default_user = {user}
default_pass = {password}
log.file.level = info
listeners.ssl.1 = 127.0.0.1:{tls_port}
ssl_options.cacertfile = {ca}
ssl_options.certfile = {cert}
ssl_options.keyfile = {key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
"""


class Broker:
    """One node.  `start`, `stop` and `kill` may follow each other in any order; `close` ends it for good.

    It has a listener with TLS too, which demands a client certificate of `authority`.
    """

    user = "solstice"

    def __init__(self, root: Root = HOST) -> None:
        self._root = root
        self.password = secrets.token_urlsafe(16)
        self.port, self._tls_port, self._epmd_port, self._peer_port = _free_ports(4)
        self._closing = ExitStack()
        self._folder = Path(tempfile.mkdtemp(prefix="solstice-broker-"))
        self._closing.callback(shutil.rmtree, self._folder)
        self._server: subprocess.Popen[bytes] | None = None
        self._log = self._folder / "server.log"
        self.authority = Authority(self._folder)
        server = self.authority.certificate("server", "subjectAltName=DNS:localhost")
        text = _CONFIGURATION.format(
            port=self.port,
            user=self.user,
            password=self.password,
            tls_port=self._tls_port,
            ca=self._seen(self.authority.ca),
            cert=self._seen(server.cert),
            key=self._seen(server.key),
        )
        (self._folder / "rabbitmq.conf").write_text(text)
        (self._folder / "env.conf").touch()
        (self._folder / "plugins").write_text("[].\n")
        self._start_epmd()

    def url(self, vhost: str = "/", host: str = "127.0.0.1") -> str:
        """The AMQP URL of a virtual host, password included."""
        return f"amqp://{self.user}:{self.password}@{host}:{self.port}/{quote(vhost, safe='')}"

    def tls_url(self, vhost: str = "/", host: str = "localhost") -> str:
        """The same with TLS; the certificate is for `localhost` alone."""
        return f"amqps://{self.user}:{self.password}@{host}:{self._tls_port}/{quote(vhost, safe='')}"

    def new_vhost(self) -> str:
        """Make a virtual host of a fresh name and return its AMQP URL."""
        name = f"test-{secrets.token_hex(4)}"
        # one evaluation where two commands would do: each starts an Erlang node of its own, and takes a second or two
        self.control(
            "eval",
            f'rabbit_vhost:add(<<"{name}">>, <<"tests">>), rabbit_auth_backend_internal:set_permissions('
            f'<<"{self.user}">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"tests">>).',
        )
        return self.url(name)

    def control(self, *words: str) -> str:
        """Run rabbitmqctl on this node and return what it prints.  Raises `AssertionError` if it fails."""
        argv = [f"{_PROGRAMS}/rabbitmqctl", "--quiet", "--node", self._node, *words]
        done = subprocess.run(
            self._root.argv(self._folder, *argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_CONTROL_SECONDS,
            env=self._environment(),
            check=False,
        )
        assert done.returncode == 0, f"rabbitmqctl {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self) -> None:
        """Return when the node takes AMQP connections.  Raises `NotReady` with its log."""
        self._server = self._spawn(f"{_PROGRAMS}/rabbitmq-server")
        until(self._listens, seconds=_START_SECONDS, what="RabbitMQ", evidence=self._evidence)

    def stop(self) -> None:
        """End the node in order; what is durable stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the node at once, as a power failure would."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End everything and remove the data."""
        with self._closing:
            self.kill()

    @property
    def pid(self) -> int:
        """The process of the node, while it runs."""
        assert self._server is not None
        return self._server.pid

    @property
    def _node(self) -> str:
        return f"solstice-tests-{self.port}@localhost"

    def _seen(self, path: Path) -> Path:
        """What the node calls a file of ours."""
        return self._root.seen(self._folder) / path.relative_to(self._folder)

    def _environment(self) -> dict[str, str]:
        folder = str(self._seen(self._folder))
        return {
            **os.environ,
            "HOME": folder,  # the cookie that node and rabbitmqctl share
            "ERL_CRASH_DUMP": f"{folder}/crash.dump",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._peer_port),
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/env.conf",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            # makes the script become the node, where it would stand between it and our signals
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _start_epmd(self) -> None:
        epmd = self._spawn("epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1")
        self._closing.callback(_end_session, epmd, signal.SIGKILL)
        until(lambda: _connects(self._epmd_port), seconds=10, what="epmd", evidence=self._evidence)

    def _spawn(self, *argv: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as sink:
            return subprocess.Popen(
                self._root.argv(self._folder, *argv),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=self._environment(),
                start_new_session=True,
            )

    def _end(self, how: signal.Signals) -> None:
        if self._server is not None:
            _end_session(self._server, how)
            self._server = None

    def _listens(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, f"RabbitMQ ended while it started:\n{self._evidence()}"
        return _connects(self.port)

    def _evidence(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]


def _end_session(leader: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Signal the leader of a session, and return when the last process of it is gone.

    Not by process group: Erlang gives each of its helpers (inet_gethost, the disk monitor) a group of its own.  They
    end by themselves when they read the end of their standard input, a moment after the node.
    """
    leader.send_signal(how)
    with suppress(subprocess.TimeoutExpired):
        leader.wait(_STOP_SECONDS)
    members = _members(leader.pid)
    if how is signal.SIGKILL or leader.poll() is None:
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    leader.wait()
    until(lambda: not _members(leader.pid), seconds=_STOP_SECONDS, what="the end of the session", evidence=str)


def _members(session: int) -> list[int]:
    return [pid for pid, place in live().items() if place.session == session]


def _connects(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has now.  They are held open together, so that no two are the same."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in held:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in held]
