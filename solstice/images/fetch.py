"""How an http or https source is asked: redirects, proxies, credentials, TLS, and the errors in the operator's words.

`download` and `checksum` call it.  One question is one connection, and nothing is tried twice here: `Broken` says that
another try may go better.  Proxies come from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, further authorities
from SSL_CERT_FILE and SSL_CERT_DIR.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin
from urllib.request import getproxies_environment, proxy_bypass

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    LocationValueError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util import parse_url
from urllib3.util.ssl_ import create_urllib3_context

from solstice import __version__
from solstice.errors import Cause, InfraError
from solstice.protocol.urls import mask_url

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 60.0  # between two packets
READ_SIZE = 256 << 10  # a compromise: a slow line is to report progress too, and a fast one to cost little

_REDIRECTS = 5
_ANSWERS = (200, 206, 304, 416)
_TEMPORARY = (408, 429)
_LONGEST_LINE = 1 << 10  # of those between the chunks of a body


class Broken(InfraError):
    """It did not work this time; `after` is how many seconds the server asks to wait, 0 if it says nothing."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(Cause.IMAGE, why)
        self.after = after


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer: 200, 206, 304 or 416.  `abort` may be called from another thread: `chunks` ends with it.

    `length` is how many bytes the server says will come.
    """

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]
    abort: Callable[[], None]
    length: int | None


def local(source: str) -> Path | None:
    """The file of a plain path or file URL, None for http and https.  Raises `InfraError` for anything else."""
    scheme, separator, rest = source.partition("://")
    if not separator:
        return Path(source)
    if scheme.lower() in ("http", "https"):
        return None
    if scheme.lower() != "file":
        raise failure(source, f"{scheme} is not supported", "use an https, http or file URL, or a path")
    host, _, path = rest.partition("/")
    if host not in ("", "localhost"):
        raise failure(source, "a file URL cannot name another host", "write it as file:///path")
    return Path("/", unquote(path))


def open_local(path: Path) -> int:
    """A descriptor to read the file from.  Raises `InfraError`, `OSError`."""
    # Looked at before it is opened: opening a FIFO would wait for a writer for ever.
    if not path.is_file():
        raise failure(str(path), "it is not a regular file" if path.exists() else "there is no such file")
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def small(source: str, limit: int) -> bytes:
    """The whole of a small file.  Raises `InfraError`, also if it has more than `limit` bytes."""
    path = local(source)
    if path is not None:
        with os.fdopen(open_local(path), "rb") as file:
            data = file.read(limit + 1)
    else:
        data = _small_http(source, limit)
    if len(data) > limit:
        raise failure(source, f"it has more than {limit} bytes")
    return data


def _small_http(url: str, limit: int) -> bytes:
    data = bytearray()
    with opened(url) as answer, contextlib.ExitStack() as stack:
        timer = threading.Timer(READ_TIMEOUT, answer.abort)
        timer.start()
        stack.callback(timer.cancel)
        for chunk in answer.chunks:
            data += chunk
            if len(data) > limit:
                break
        else:
            check_end(url, len(data), answer.length)
    return bytes(data)


def check_end(url: str, count: int, length: int | None) -> None:
    """Raises `Broken` if the connection ended before all had come.

    Counted by us, because the versions of urllib3 differ in what an early end is to them.
    """
    if length is not None and count != length:
        raise Broken(f"{mask_url(url)}: the connection ended after {count} of {length} bytes")


@contextlib.contextmanager
def opened(url: str, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
    """Ask for `url`; leaving the context closes the connection.

    Raises `Broken` and other `InfraError`, when it is entered as well as from `chunks`.
    """
    with contextlib.ExitStack() as stack:
        response = _follow(url, headers or {}, stack)
        if response.status not in _ANSWERS:
            raise _refusal(url, response)
        abort = _abort(response, stack)
        with _words(url):
            said = response.headers.get("Content-Length", "")
            length = int(said) if said.isdecimal() else None
        yield Answer(response.status, response.headers, _body(url, response), abort, length)


def _follow(url: str, headers: Mapping[str, str], stack: contextlib.ExitStack) -> Any:
    """The response after all redirects.  Our own loop, so that nothing is ever asked of a place it may not go to."""
    at, origin, login = url, "", ""
    for _ in range(_REDIRECTS + 1):
        with _words(url, lasting=(SSLError, LocationValueError)):
            parts = parse_url(at)
            if parts.auth:
                login = "Basic " + base64.b64encode(unquote(parts.auth).encode()).decode()
            elif origin and origin != f"{parts.scheme}://{parts.netloc}":
                login = ""  # a password is for the server it was given for
            bare = parts._replace(auth=None)
            origin = f"{bare.scheme}://{bare.netloc}"
            response = _ask(bare, {**headers, "Authorization": login} if login else headers, stack)
            location = response.get_redirect_location()
            if not location:
                return response
            at = urljoin(bare.url, location)
        if not at.lower().startswith(("https:", "http:")):
            raise failure(url, f"the server redirects to {mask_url(at)}", "give `source` the address of the image")
        if bare.scheme == "https" and not at.lower().startswith("https:"):
            remedy = "use a source that stays with https"
            raise failure(url, f"the server redirects from https to {mask_url(at)}", remedy)
    raise failure(url, "too many redirects")


def _ask(parts: Any, headers: Mapping[str, str], stack: contextlib.ExitStack) -> Any:
    # Identity: an image must come as it was stored, and Content-Length must speak of the bytes that are counted here.
    general = {"User-Agent": f"solstice/{__version__}", "Accept-Encoding": "identity"}
    pool = stack.enter_context(_pool(parts.scheme, parts.host or ""))
    response = pool.request(
        "GET",
        parts.url,
        headers={**general, **headers},
        timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT),
        retries=False,
        redirect=False,
        preload_content=False,
        enforce_content_length=False,
    )
    stack.callback(response.close)
    return response


def _pool(scheme: str, host: str) -> Any:
    proxies = getproxies_environment()
    proxy = proxies.get(scheme) or proxies.get("all")
    options = {"ssl_context": _tls()} if scheme == "https" else {}
    if not proxy or proxy_bypass(host, proxies):
        return urllib3.PoolManager(**options)
    parts = parse_url(proxy if "://" in proxy else f"http://{proxy}")
    login = urllib3.make_headers(proxy_basic_auth=unquote(parts.auth)) if parts.auth else None
    if parts.scheme == "https":
        options["proxy_ssl_context"] = _tls()
    return urllib3.ProxyManager(parts._replace(auth=None).url, proxy_headers=login, **options)


def _tls() -> Any:
    # The system's trust store, said explicitly: Debian's urllib3 and upstream's have different defaults.
    # The context is urllib3's own kind: 1.26 checks the host's name itself, 2 leaves that to OpenSSL.
    context = create_urllib3_context()
    context.load_default_certs()
    return context


def _refusal(url: str, response: Any) -> InfraError:
    said = f"the server answered {response.status} {response.reason or ''}".rstrip()
    if response.status in _TEMPORARY or response.status >= 500:
        return Broken(f"{mask_url(url)}: {said}", _seconds(response.headers.get("Retry-After", "")))
    if response.status in (401, 407):
        where = "the proxy's address" if response.status == 407 else "`source`"
        return failure(url, said, f"put USER:PASSWORD@ before the host in {where}")
    return failure(url, said)


def _seconds(retry_after: str) -> float:
    if retry_after.isdecimal():
        return float(retry_after)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.datetime.now(datetime.UTC)).total_seconds())
    return 0.0


def _body(url: str, response: Any) -> Iterator[bytes]:
    with _words(url):
        if response.chunked and response._fp.fp:
            response._fp.fp = _Lines(response._fp.fp)
        yield from response.stream(READ_SIZE, decode_content=False)


class _Lines:
    """The stream below a chunked response, with bounds: urllib3 reads the line before a chunk whatever its length.

    Nor does it see a negative size, which is to read all there is.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def readline(self) -> bytes:
        line: bytes = self._stream.readline(_LONGEST_LINE + 1)
        if len(line) > _LONGEST_LINE or line.lstrip().startswith(b"-"):
            raise ProtocolError("the server sent a chunk whose size makes no sense")
        return line


def _abort(response: Any, stack: contextlib.ExitStack) -> Callable[[], None]:
    """A function that ends the transfer, whatever its reader is waiting for.

    A descriptor of its own: the library's may be closed, and its number in use again, when it is called.
    """
    try:
        sock = stack.enter_context(socket.socket(fileno=os.dup(response.fileno())))
    except (AttributeError, OSError, ValueError):
        return lambda: None  # an empty body: the library has closed the connection

    def shut() -> None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    return shut


@contextlib.contextmanager
def _words(url: str, lasting: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turns what urllib3 raises into what an operator can read; of the `lasting` kinds no other try is promised.

    Nor of a timeout: it has cost a minute already, and others are waiting.
    """
    try:
        yield
    except HTTPError as error:
        if any(isinstance(error, kind) for kind in (ReadTimeoutError, *lasting)):
            raise failure(url, _say(error)) from None
        raise Broken(f"{mask_url(url)}: {_say(error)}") from None
    except ValueError:  # whatever a server writes where a number or an address belongs
        raise failure(url, "the server sent an answer that makes no sense") from None


def _say(error: BaseException) -> str:
    if isinstance(error, LocationParseError):
        return "the address, or that of the proxy, is not a valid URL"  # urllib3's text quotes it, password and all
    # urllib3's own text begins with the address of an object; the system's says it better where there is one.
    origin = error.__cause__ or error.__context__
    if isinstance(origin, OSError) and origin.strerror:
        return origin.strerror
    if isinstance(error, ConnectTimeoutError):
        return f"no connection within {CONNECT_TIMEOUT:g} s"
    if isinstance(error, ReadTimeoutError):
        return f"nothing came for {READ_TIMEOUT:g} s"
    return f"the transfer failed: {mask_url(str(error.args[0] if error.args else error))}"


def failure(source: str, why: str, remedy: str = "") -> InfraError:
    return InfraError(Cause.IMAGE, f"{mask_url(source)}: {why}", remedy)
