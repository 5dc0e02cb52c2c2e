"""A server between a pull and a real one, which passes on what is asked and answered, but for the faults of a test.

Each request takes the next of `faults`; when they are used up, all goes well.  `passed` is what was asked and sent.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_ASKED = ("Range", "If-Range", "If-None-Match", "If-Modified-Since")
_ANSWERED = ("Content-Range", "ETag", "Last-Modified", "Location")
_PIECE = 16 << 10
_DRIP = 0.05


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request; offsets are in the body of its answer."""

    before: Callable[[], None] | None = None  # done before the real server is asked
    without: tuple[str, ...] = ()  # headers of the request or of the answer that are lost
    status: int = 0  # answered instead, with `retry_after`
    retry_after: str = ""
    claim: int = 0  # added to Content-Length
    flip: int | None = None  # the byte here is another
    cut: int | None = None  # the connection ends here
    stall: int | None = None  # nothing more comes from here
    drip: bool = False  # a byte now and then
    endless: bool = False  # zeros without end, and without a length


@dataclass(slots=True)
class Passed:
    """One request and how many bytes of a body it got."""

    path: str
    range: str
    status: int = 0
    sent: int = 0


@dataclass
class Proxy:
    upstream: str
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    passed: list[Passed] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        fault = self.faults.pop(0) if self.faults else Fault()
        passed = Passed(request.path, request.headers.get("Range", ""))
        self.passed.append(passed)
        if fault.before:
            fault.before()
        if fault.status:
            _begin(request, passed, fault.status, {"Content-Length": "0", "Retry-After": fault.retry_after})
        elif fault.endless:
            _begin(request, passed, 200, {})
            _send(request, passed, iter(lambda: bytes(_PIECE), b""))
        else:
            self._pass(request, passed, fault)

    def _pass(self, request: BaseHTTPRequestHandler, passed: Passed, fault: Fault) -> None:
        parts = urlsplit(self.upstream)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        with contextlib.closing(connection):
            asked = {name: request.headers[name] for name in _ASKED if name in request.headers}
            connection.request("GET", request.path, headers=_kept(asked, fault))
            answer = connection.getresponse()
            headers = {name: answer.headers[name] for name in _ANSWERED if name in answer.headers}
            if answer.length is not None and answer.status != 304:
                headers["Content-Length"] = str(answer.length + fault.claim)
            _begin(request, passed, answer.status, _kept(headers, fault))
            _send(request, passed, self._body(answer, fault))

    def _body(self, answer: http.client.HTTPResponse, fault: Fault) -> Iterator[bytes]:
        at = 0
        while piece := bytearray(answer.read(1 if fault.drip else _PIECE)):
            if fault.flip is not None and at <= fault.flip < at + len(piece):
                piece[fault.flip - at] ^= 1
            for end in (fault.cut, fault.stall):
                if end is not None and at + len(piece) >= end:
                    yield bytes(piece[: end - at])
                    if fault.stall is not None:
                        self.released.wait()
                    return
            yield bytes(piece)
            at += len(piece)
            if fault.drip:
                self.released.wait(_DRIP)


def _kept(headers: dict[str, str], fault: Fault) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in fault.without}


def _begin(request: BaseHTTPRequestHandler, passed: Passed, status: int, headers: dict[str, str]) -> None:
    passed.status = status
    request.send_response(status)
    for name, value in headers.items():
        if value:
            request.send_header(name, value)
    request.end_headers()


def _send(request: BaseHTTPRequestHandler, passed: Passed, pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        request.wfile.write(piece)
        passed.sent += len(piece)


@contextlib.contextmanager
def between(upstream: str) -> Iterator[Proxy]:
    """A proxy before the server at `upstream`, for the time of the context."""
    proxy = Proxy(upstream)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # a client that gives up in the middle is the subject here
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                proxy.serve(self)

        def log_message(self, format: str, *args: object) -> None:
            """The tests look at `passed` instead."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.url = f"http://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.released.set()
        listener.shutdown()
        thread.join()
        listener.server_close()
