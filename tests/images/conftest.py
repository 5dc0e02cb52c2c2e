"""A real HTTP server on the loopback, whose answers a test writes as a function of the request."""

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """`routes` maps a path to what answers it; `asked` is every path that was requested, in order."""

    url: str = ""
    routes: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def serve(self, path: str, body: bytes) -> str:
        """Answer `path` properly; the URL."""

        def answer(request: BaseHTTPRequestHandler) -> None:
            begin(request, {"Content-Length": str(len(body))})
            request.wfile.write(body)

        return self.route(path, answer)

    def stall(self, path: str, begun: bytes, length: int) -> str:
        """Answer `path` with `begun` and then nothing until the test is over; the URL."""

        def answer(request: BaseHTTPRequestHandler) -> None:
            begin(request, {"Content-Length": str(length)})
            request.wfile.write(begun)
            self.released.wait()

        return self.route(path, answer)

    def route(self, path: str, answer: Answer) -> str:
        self.routes[path] = answer
        return self.url + path


def begin(request: BaseHTTPRequestHandler, headers: dict[str, str], status: int = 200) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.end_headers()


@contextlib.contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A server for the time of the context."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            # A client that gives up in the middle is what half of these tests are about.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if self.path in state.routes:
                    state.routes[self.path](self)
                else:
                    self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            """The tests look at `asked` instead."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        listener.socket = tls.wrap_socket(listener.socket, server_side=True)
    state.url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        listener.shutdown()
        thread.join()
        listener.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running
