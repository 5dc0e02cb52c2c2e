"""A PostgreSQL server of the tests' own: own data, port and password; nothing of it outlives `close`.

Debian's wrappers manage clusters of the host, so the programs behind them are used directly.  A server refuses to run
as root; started by root it becomes the user postgres, whom Debian's package makes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg2
import psycopg2.extensions

from tests.real.leftovers import live
from tests.real.waiting import until

_START_SECONDS = 30.0
_STOP_SECONDS = 30.0
_USER = "postgres"
_CONFIGURATION = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
# the tests end processes, not the host's power
fsync = off
max_connections = 20
shared_buffers = 16MB
"""


class Postgresql:
    """One server.  `start`, `stop`, `crash`, `freeze` and `thaw` are for tests; `close` ends it for good."""

    def __init__(self) -> None:
        self.password = secrets.token_urlsafe(16)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port: int = sock.getsockname()[1]
        self.folder = Path(tempfile.mkdtemp(prefix="solstice-postgresql-"))
        self._data = self.folder / "data"
        self._log = self.folder / "server.log"
        self._server: subprocess.Popen[bytes] | None = None
        self._initialise()

    def processes(self) -> list[int]:
        """The processes of the server, while it runs."""
        assert self._server is not None
        main = self._server.pid
        return [main, *(pid for pid, place in live().items() if place.parent == main)]

    def url(self, database: str = "postgres", password: str = "") -> str:
        return f"postgresql://{_USER}:{password or self.password}@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database, which is dropped afterwards, whoever is still connected to it."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name}")
        yield self.url(name)
        psycopg2.extensions.set_wait_callback(None)  # a store that this process opened has set one with a short limit
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str, url: str = "") -> list[tuple[object, ...]]:
        """Execute one statement, outside of any transaction; its rows."""
        connection = psycopg2.connect(url or self.url())
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def start(self) -> None:
        """Return when the server takes connections.  Raises `NotReady` with its log."""
        with self._log.open("ab") as sink:
            self._server = subprocess.Popen(
                self._argv("postgres", "-D", str(self._data)),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=self.folder,
                start_new_session=True,
            )
        until(self._answers, seconds=_START_SECONDS, what="PostgreSQL", evidence=self._evidence)

    def stop(self) -> None:
        """End the server in order, with the connections there are."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """End the server without a checkpoint: the next start recovers.  (SIGKILL would leave shared memory behind.)"""
        self._end(signal.SIGQUIT)

    def freeze(self) -> None:
        """Stop every process of the server where it is; its kernel goes on to take connections."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End the server and remove the data."""
        try:
            self.crash()
        finally:
            shutil.rmtree(self.folder)

    def _initialise(self) -> None:
        password = self.folder / "password"
        password.write_text(self.password)
        if os.geteuid() == 0:
            for path in (self.folder, password):
                shutil.chown(path, _USER, _USER)
        options = [
            "--no-sync",
            "--auth=scram-sha-256",
            f"--username={_USER}",
            f"--pwfile={password}",
            "--encoding=UTF8",
        ]
        argv = self._argv("initdb", *options, "--locale=C", "-D", str(self._data))
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, cwd=self.folder, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(_CONFIGURATION.format(port=self.port))

    def _argv(self, program: str, *words: str) -> list[str]:
        newest = max(Path("/usr/lib/postgresql").iterdir(), key=lambda path: int(path.name))
        become = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"] if os.geteuid() == 0 else []
        return [*become, str(newest / "bin" / program), *words]

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.processes():
            # one that served a connection may have ended meanwhile
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _end(self, how: signal.Signals) -> None:
        if self._server is not None:
            self.thaw()
            self._server.send_signal(how)
            self._server.wait(_STOP_SECONDS)
            self._server = None

    def _answers(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, f"PostgreSQL ended while it started:\n{self._evidence()}"
        with suppress(psycopg2.OperationalError):
            return self.execute("SELECT 1") == [(1,)]
        return False

    def _evidence(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]
