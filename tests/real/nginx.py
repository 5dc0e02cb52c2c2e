"""An nginx of the tests' own, as whoever runs them: what is in `folder` by http and https, and its log of answers.

/…          the files, with ranges and ETags
/private/…  the same files behind basic authentication, USER and PASSWORD
/slow/…     the same files at RATE bytes per second
/moved/…    a redirect to the file; /away/… one from https to http
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.real.certificates import Authority
from tests.real.waiting import until

USER = "solstice"
PASSWORD = "a b@c"  # noqa: S105 - of this server alone
RATE = 256 << 10

_SECONDS = 20.0
_CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ }}
http {{
    log_format plain '$request_uri $status $body_bytes_sent "$http_range"';
    access_log {folder}/access.log plain;
    client_body_temp_path {folder}/temp;
    proxy_temp_path {folder}/temp;
    fastcgi_temp_path {folder}/temp;
    uwsgi_temp_path {folder}/temp;
    scgi_temp_path {folder}/temp;
    sendfile on;
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl;
        ssl_certificate {cert};
        ssl_certificate_key {key};
        root {files};
        location /private/ {{
            alias {files}/;
            auth_basic images;
            auth_basic_user_file {folder}/users;
        }}
        location /slow/ {{
            alias {files}/;
            limit_rate {rate};
        }}
        location /moved/ {{
            rewrite ^/moved/(.*)$ /$1 redirect;
        }}
        location /away/ {{
            rewrite ^/away/(.*)$ http://127.0.0.1:{port}/$1 redirect;
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """One line of the log: `count` are the bytes of the body that were sent."""

    path: str
    status: int
    count: int
    range: str


class Nginx:
    """One server.  `ca` is the authority of its certificate, which is for `localhost`."""

    def __init__(self) -> None:
        self._closing = ExitStack()
        self._folder = Path(tempfile.mkdtemp(prefix="solstice-nginx-"))
        self._folder.chmod(0o711)  # started by root, it works as another user
        self._closing.callback(shutil.rmtree, self._folder)
        self.files = self._folder / "files"
        self.files.mkdir()
        authority = Authority(self._folder)
        self.ca = authority.ca
        made = authority.certificate("server", "subjectAltName=DNS:localhost")
        self._port, tls_port = _free_ports(2)
        self.url = f"http://127.0.0.1:{self._port}"
        self.tls_url = f"https://localhost:{tls_port}"
        (self._folder / "users").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
        (self._folder / "nginx.conf").write_text(
            _CONFIGURATION.format(
                folder=self._folder,
                files=self.files,
                port=self._port,
                tls_port=tls_port,
                cert=made.cert,
                key=made.key,
                rate=RATE,
            )
        )

    def start(self) -> None:
        """Return when it answers.  Raises `NotReady` with its log."""
        argv = [
            "nginx",
            "-p",
            str(self._folder),
            "-e",
            str(self._folder / "error.log"),
            "-c",
            str(self._folder / "nginx.conf"),
        ]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._closing.callback(_end, process)
        until(self._answers, seconds=_SECONDS, what="nginx", evidence=self._evidence)

    def close(self) -> None:
        """End it and remove its files."""
        self._closing.close()

    def asked(self, path: str) -> list[Asked]:
        """What was asked of this path, in order.  A transfer is logged when it has ended."""
        lines = (line.split(" ", 3) for line in (self._folder / "access.log").read_text().splitlines())
        return [
            Asked(where, int(status), int(count), said.strip('"'))
            for where, status, count, said in lines
            if where == path
        ]

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
            return True
        return False

    def _evidence(self) -> str:
        log = self._folder / "error.log"
        return log.read_text(errors="replace")[-3000:] if log.exists() else "it wrote no log"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has now.  They are held open together, so that no two are the same."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in held:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in held]
